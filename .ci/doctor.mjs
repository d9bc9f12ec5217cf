/**
 * `npm run test:doctor`: what `certvend doctor` makes of every fault, pair and healthy set-up in
 * test/doctor/faults.ts. `-- --tables` writes what it made of them into docs/troubleshooting.md;
 * other words are handed to vitest (`-- -t clock`).
 *
 * Needs root, for users, disks and networks, and faketime, mosquitto, iproute2, nftables; where they
 * are missing everything is skipped, and says so.
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { troubleshootingPage } from '../packages/agent/dist/doctor/page.js'
import { doubles, faults, healthy } from '../test/dist/doctor/faults.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const words = process.argv.slice(2).filter((word) => word !== '--')
const tables = words.includes('--tables')
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'certvend-doctor-'))
const file = path.join(folder, 'report.json')

const { status } = spawnSync(
  path.join(root, 'node_modules/.bin/vitest'),
  [
    'run',
    '--config',
    '.ci/doctor.config.mjs',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${file}`,
    ...words.filter((word) => word !== '--tables'),
  ],
  { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] },
)
if (!fs.existsSync(file)) {
  console.log('doctor: 0 passed, 1 failed, 0 skipped')
  process.exit(1)
}
const report = JSON.parse(fs.readFileSync(file, 'utf8'))
fs.rmSync(folder, { recursive: true })
const results = report.testResults.flatMap(({ assertionResults }) => assertionResults)
const diagnosed = new Map(
  results.flatMap(({ meta }) => (meta?.diagnosed ? [[meta.diagnosed.name, meta.diagnosed]] : [])),
)

const known = Object.entries(faults).filter(([name]) => diagnosed.has(name))
const right = known.filter(([name, { expected }]) => diagnosed.get(name).cause === expected)
const slowest = Math.max(0, ...[...diagnosed.values()].map(({ tookMs }) => tookMs))
console.log(
  `the right cause first in ${right.length} of ${known.length} faults; slowest ${(slowest / 1000).toFixed(1)} s`,
)
if (tables && status === 0 && known.length === Object.keys(faults).length) writeTables()
const skipped = report.numPendingTests + report.numTodoTests
console.log(
  `doctor: ${report.numPassedTests} passed, ${report.numFailedTests} failed, ${skipped} skipped`,
)
process.exit(status ?? 1)

function writeTables() {
  const page = path.join(root, 'docs/troubleshooting.md')
  const also = (found, ...expected) =>
    found.filter((check) => !expected.includes(check)).join(', ') || ' '
  const rows = [
    '| what is wrong | put in by | named first | also named |',
    '| --- | --- | --- | --- |',
    ...known.map(([name, { what, by }]) => {
      const { cause, found } = diagnosed.get(name)
      return `| ${what} | ${by} | ${cause} | ${also(found, cause)} |`
    }),
    '',
    '| two at once | named |',
    '| --- | --- |',
    ...doubles.map((pair) => {
      const { found } = diagnosed.get(pair.join(', '))
      return `| ${pair.map((name) => faults[name].what).join('; ')} | ${found.join(', ')} |`
    }),
    '',
    'Nothing is found where nothing is wrong:',
    '',
    ...Object.values(healthy).map((what) => `- ${what}`),
  ]
  fs.writeFileSync(page, troubleshootingPage(`\n${rows.join('\n')}\n`))
}
