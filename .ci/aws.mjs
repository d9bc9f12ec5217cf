/**
 * `npm run test:aws`: what needs AWS, against what imitates it: MiniStack and moto.
 *
 * Both are written in Python by others (`python.mjs`) and are started once for every suite below. A
 * suite finds them by MINISTACK_URL, MINISTACK_MQTT_PORT, STRICT_MINISTACK_URL (where IAM is enforced),
 * MOTO_URL and AWS_CLI, and skips by name what is not there; `npm run test:aws -- deploy` runs the files whose name holds that word. Without Python, or
 * without a way to PyPI, this says what to install, and skips.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { credentials, startMinistack, startMoto } from './emulators.mjs'
import { pythonTool } from './python.mjs'

/** Test files, or directories of them. */
const suites = ['test/ministack.test.ts', 'test/aws/', 'packages/server/test/aws/']

const root = fileURLToPath(new URL('..', import.meta.url))
/** By name: the tool, and how it is started. The strict one judges signatures and IAM policies too. */
const emulators = {
  ministack: ['ministack', startMinistack],
  strict: [
    'ministack',
    (program, at) => startMinistack(program, at, { name: 'strict', enforceIam: true }),
  ],
  moto: ['moto', startMoto],
}
const words = process.argv.slice(2).filter((word) => !word.startsWith('-'))
const options = process.argv.slice(2).filter((word) => word.startsWith('-'))

/** Files of the suites, of those that hold one of the words if there are any. */
function filesToRun() {
  const files = suites.flatMap((suite) => {
    if (!suite.endsWith('/')) return [suite]
    const at = path.join(root, suite)
    const names = fs.existsSync(at) ? fs.readdirSync(at) : []
    return names.filter((name) => name.endsWith('.test.ts')).map((name) => suite + name)
  })
  return words.length === 0
    ? files
    : files.filter((file) => words.some((word) => file.includes(word)))
}

const running = {}
let suite
// A terminal's Ctrl-C reaches the children too; whoever ends us alone must not leave them behind.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.on(signal, () => {
    suite?.kill()
    for (const emulator of Object.values(running)) emulator.stop()
  })

async function runSuites(files, work, awsCli) {
  const report = path.join(work, 'report.json')
  const { ministack, strict, moto } = running
  suite = spawn(
    process.execPath,
    [
      path.join(root, 'node_modules', 'vitest', 'vitest.mjs'),
      'run',
      ...files,
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
      ...options,
    ],
    {
      cwd: root,
      stdio: 'inherit',
      timeout: 1_800_000,
      env: {
        ...process.env,
        ...credentials,
        ...(ministack && {
          MINISTACK_URL: ministack.url,
          MINISTACK_MQTT_PORT: String(ministack.mqttPort),
          MINISTACK_LOG: ministack.log,
        }),
        ...(strict && {
          STRICT_MINISTACK_URL: strict.url,
          STRICT_MINISTACK_MQTT_PORT: String(strict.mqttPort),
        }),
        ...(moto && { MOTO_URL: moto.url }),
        ...(awsCli && { AWS_CLI: awsCli }),
      },
    },
  )
  const code = await new Promise((resolve) => suite.once('exit', resolve))
  return { code, report: JSON.parse(fs.readFileSync(report, 'utf8')) }
}

const skipped = new Set()
/** Where a tool is; one that cannot be had is a named skip, once. */
async function toolOrSkip(name) {
  const tool = await pythonTool(name)
  if (tool.missing && !skipped.has(name)) {
    skipped.add(name)
    counts.skipped += 1
    console.log(`skipped: ${name}: ${tool.missing}\n  ${tool.advice}`)
  }
  return tool.program
}

const work = fs.mkdtempSync(path.join(os.tmpdir(), 'certvend-aws-'))
const counts = { passed: 0, failed: 0, skipped: 0 }
let code = 1
try {
  for (const [name, [needed, start]] of Object.entries(emulators)) {
    const program = await toolOrSkip(needed)
    if (program) running[name] = await start(program, work)
  }
  if (Object.keys(running).length === 0) code = 0
  else {
    const ended = await runSuites(filesToRun(), work, await toolOrSkip('aws'))
    counts.passed += ended.report.numPassedTests
    counts.failed += ended.report.numFailedTests
    counts.skipped += ended.report.numPendingTests
    code = ended.code ?? 1
    // A suite may fail before its first test.
    if (code !== 0 && counts.failed === 0) counts.failed = 1
  }
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  counts.failed += 1
} finally {
  for (const emulator of Object.values(running)) await emulator.stop()
  fs.rmSync(work, { recursive: true, force: true })
}
console.log(`\naws: ${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`)
process.exitCode = code
