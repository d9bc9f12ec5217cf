/**
 * `npm run test:aws`: the IoT Core examples, unchanged, against MiniStack, which imitates AWS.
 *
 * MiniStack is written in Python by others; it is installed by pip, by name, into a virtual
 * environment in the user's cache folder, outside the tree, on the first run (about 215 MB). Without
 * Python, or without a way to PyPI, this says so and skips.
 */
import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const cache = path.join(
  process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'),
  'certvend',
  'ministack',
)
const program = path.join(cache, 'bin', 'ministack')

/** Ends with a named skip, which is no failure. */
function skip(why, what) {
  console.log(`skipped: ${why}\n  ${what}\n\naws: 0 passed, 0 failed, 1 skipped`)
  process.exit(0)
}

function install() {
  if (fs.existsSync(program)) return
  const python = ['python3', 'python'].find((name) => spawnSync(name, ['--version']).status === 0)
  if (!python) skip('Python is not installed', 'on Debian: apt-get install python3 python3-venv')
  console.error(`First run here: installing MiniStack into ${cache}, about half a minute.`)
  fs.rmSync(cache, { recursive: true, force: true })
  fs.mkdirSync(path.dirname(cache), { recursive: true })
  const quiet = { encoding: 'utf8', timeout: 300_000 }
  const made = spawnSync(python, ['-m', 'venv', cache], quiet)
  if (made.status !== 0) {
    fs.rmSync(cache, { recursive: true, force: true })
    skip('Python makes no virtual environment', 'on Debian: apt-get install python3-venv')
  }
  const pip = spawnSync(path.join(cache, 'bin', 'pip'), ['install', '-q', 'ministack[full]'], quiet)
  if (pip.status !== 0 || !fs.existsSync(program)) {
    fs.rmSync(cache, { recursive: true, force: true })
    const said = `${pip.stderr ?? ''}`.trim().split('\n').at(-1)
    skip(`pip could not install ministack[full] (${said})`, 'it needs PyPI, or a mirror of it')
  }
}

async function freePort() {
  const server = net.createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return String(port)
}

install()
const work = fs.mkdtempSync(path.join(os.tmpdir(), 'certvend-aws-'))
const [port, mqttPort] = [await freePort(), await freePort()]
const url = `http://127.0.0.1:${port}`
const log = fs.openSync(path.join(work, 'log'), 'w')
const ministack = spawn(program, [], {
  cwd: work,
  stdio: ['ignore', log, log],
  env: {
    PATH: process.env.PATH,
    HOME: work,
    TMPDIR: work,
    GATEWAY_PORT: port,
    IOT_MTLS_PORT: mqttPort,
    BIND_HOST: '127.0.0.1',
    LOG_LEVEL: 'WARNING',
  },
})
const gone = new Promise((resolve) => ministack.once('exit', resolve))
let suite
// A terminal's Ctrl-C reaches the children too; whoever ends us alone must not leave them behind.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'])
  process.on(signal, () => {
    suite?.kill()
    ministack.kill()
  })
let code = 1
try {
  const deadline = Date.now() + 30_000
  for (;;) {
    const said = await fetch(`${url}/_ministack/ready`).then(
      (reply) => reply.json(),
      () => undefined,
    )
    if (said?.iot_mtls === 'listening') break
    if (Date.now() > deadline || ministack.exitCode !== null)
      throw new Error(
        `MiniStack did not start:\n${fs.readFileSync(path.join(work, 'log'), 'utf8')}`,
      )
    await pause(200)
  }
  const report = path.join(work, 'report.json')
  suite = spawn(
    process.execPath,
    [
      path.join(root, 'node_modules', 'vitest', 'vitest.mjs'),
      'run',
      'test/ministack.test.ts',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
      ...process.argv.slice(2),
    ],
    {
      cwd: root,
      stdio: 'inherit',
      timeout: 180_000,
      env: { ...process.env, MINISTACK_URL: url, MINISTACK_MQTT_PORT: mqttPort },
    },
  )
  const ended = await new Promise((resolve) => suite.once('exit', resolve))
  const { numPassedTests, numFailedTests, numPendingTests } = JSON.parse(
    fs.readFileSync(report, 'utf8'),
  )
  console.log(
    `\naws: ${numPassedTests} passed, ${numFailedTests} failed, ${numPendingTests} skipped`,
  )
  code = ended ?? 1
} catch (error) {
  console.error(error instanceof Error ? error.message : error)
  console.log('\naws: 0 passed, 1 failed')
} finally {
  ministack.kill()
  await gone
  fs.rmSync(work, { recursive: true, force: true })
}
process.exitCode = code
