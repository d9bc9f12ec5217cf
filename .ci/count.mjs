/**
 * Runs vitest on the files named and closes with a line that CI counts: `node .ci/count.mjs NAME FILE …`
 * prints `NAME: N passed, N failed, N skipped`.
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const [name, ...words] = process.argv.slice(2)
const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'certvend-count-'))
const file = path.join(folder, 'report.json')
const { status } = spawnSync(
  path.join(root, 'node_modules/.bin/vitest'),
  ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${file}`, ...words],
  { cwd: root, stdio: ['ignore', 'inherit', 'inherit'] },
)
const report = fs.existsSync(file)
  ? JSON.parse(fs.readFileSync(file, 'utf8'))
  : { numPassedTests: 0, numFailedTests: 1, numPendingTests: 0, numTodoTests: 0 }
fs.rmSync(folder, { recursive: true })
const skipped = report.numPendingTests + report.numTodoTests
console.log(
  `${name}: ${report.numPassedTests} passed, ${report.numFailedTests} failed, ${skipped} skipped`,
)
process.exit(status ?? 1)
