/**
 * `npm run test:matrix`: the suite, as built, under each Node that we support.
 *
 * The binaries come from the npm packages node-<platform>-<arch> and are kept in
 * node_modules/.cache. `--budget <seconds>` starts no further run after that many; a version that
 * cannot be had, or for which no time is left, is skipped by name.
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'

const root = fileURLToPath(new URL('..', import.meta.url))
const { values } = parseArgs({
  options: {
    budget: { type: 'string', default: '3600' },
    only: { type: 'string', multiple: true },
  },
})
// Both ends first: they tell most, should the budget not last.
const wanted = values.only ?? ['20.19.0', 'latest', '24', '22']
const packageName = `node-${process.platform}-${process.arch}`
const cache = path.join(root, 'node_modules', '.cache', 'certvend', packageName)
const began = performance.now()
const elapsed = () => (performance.now() - began) / 1000

/** The path of a Node binary, fetched when it is not there yet; or why there is none. */
function fetchNode(version) {
  const folder = path.join(cache, version)
  const binary = path.join(folder, 'node_modules', packageName, 'bin', 'node')
  if (!fs.existsSync(binary)) {
    fs.mkdirSync(folder, { recursive: true })
    fs.writeFileSync(path.join(folder, 'package.json'), '{"private":true}\n')
    const install = spawnSync(
      'npm',
      [
        'install',
        '--no-save',
        '--no-audit',
        '--no-fund',
        '--loglevel=error',
        `${packageName}@${version}`,
      ],
      { cwd: folder, encoding: 'utf8', timeout: 180_000 },
    )
    if (install.status !== 0 || !fs.existsSync(binary)) {
      fs.rmSync(folder, { recursive: true, force: true })
      const why = install.error?.message ?? install.stderr.trim().split('\n')[0]
      return { why: `${packageName}@${version} cannot be fetched: ${why}` }
    }
  }
  const said = spawnSync(binary, ['--version'], { encoding: 'utf8' })
  return said.status === 0
    ? { binary, version: said.stdout.trim() }
    : { why: `${packageName}@${version} does not run here` }
}

/** One run of the suite; the counts are vitest's own. */
function runSuite(binary) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'certvend-matrix-'))
  const report = path.join(folder, 'report.json')
  try {
    const run = spawnSync(
      binary,
      [
        path.join(root, 'node_modules', 'vitest', 'vitest.mjs'),
        'run',
        // The JSON report leaves out what failed outside of any test.
        '--reporter=dot',
        '--reporter=json',
        `--outputFile.json=${report}`,
      ],
      {
        cwd: root,
        encoding: 'utf8',
        maxBuffer: 2 ** 28,
        // Tests that start `node` or a command find the same one.
        env: {
          ...process.env,
          PATH: `${path.dirname(binary)}${path.delimiter}${process.env.PATH}`,
        },
      },
    )
    const said = `${run.stdout}${run.stderr}`.trim()
    if (!fs.existsSync(report))
      return { ok: false, failures: [said], passed: 0, failed: 0, skipped: 0 }
    const result = JSON.parse(fs.readFileSync(report, 'utf8'))
    const failures = result.testResults.flatMap(({ name, status, message, assertionResults }) => {
      const of = assertionResults
        .filter((test) => test.status === 'failed')
        .map((test) => `${test.fullName}\n${test.failureMessages.join('\n')}`)
      return of.length > 0 || status !== 'failed' ? of : [`${name}\n${message}`]
    })
    const ok = run.status === 0
    if (!ok && failures.length === 0) {
      const how = run.signal ? `was ended by ${run.signal}` : `ended with ${run.status}`
      failures.push(`vitest ${how}, and no test had failed; the end of what it said:`)
      failures.push(said.slice(-8000))
    }
    return {
      ok,
      failures,
      passed: result.numPassedTests,
      failed: result.numFailedTests,
      skipped: result.numPendingTests + result.numTodoTests,
    }
  } finally {
    fs.rmSync(folder, { recursive: true, force: true })
  }
}

/** A failure without the frames that are not ours. */
const withoutLibraries = (text) => text.replace(/\n +at .*(node_modules|node:|<anonymous>).*/g, '')

const row = (...cells) =>
  console.log(
    cells
      .map((cell, at) => String(cell)[at < 2 ? 'padEnd' : 'padStart'](at < 2 ? 10 : 8))
      .join(' '),
  )

const totals = { passed: 0, failed: 0, skipped: 0 }
row('node', 'result', 'passed', 'failed', 'skipped', 'seconds')
for (const version of wanted) {
  const late = elapsed() > Number(values.budget)
  const node = late ? { why: `no time left after ${values.budget} s` } : fetchNode(version)
  if (!node.binary) {
    row(version, 'skipped')
    console.log(`  ${node.why}`)
    totals.skipped++
    continue
  }
  const start = elapsed()
  const { ok, failures, passed, failed, skipped } = runSuite(node.binary)
  row(node.version, ok ? 'ok' : 'FAILED', passed, failed, skipped, (elapsed() - start).toFixed(0))
  for (const failure of failures) console.log(withoutLibraries(failure).replace(/^/gm, '    '))
  totals[ok ? 'passed' : 'failed']++
}

const skipped = totals.skipped > 0 ? `, ${totals.skipped} skipped` : ''
console.log(`\nmatrix: ${totals.passed} passed, ${totals.failed} failed${skipped}`)
process.exitCode = totals.failed === 0 ? 0 : 1
