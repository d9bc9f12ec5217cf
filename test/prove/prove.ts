/**
 * `npm run prove`: the crash proof of the credential store, printed as two tables.
 *
 *     npm run prove                 the states a crash may leave; about a minute
 *     npm run prove -- --reality    also real kills, faults, full disks and power cuts; five minutes
 *     npm run prove -- --lives      also ten thousand lives, and 200 of real processes; five minutes
 *     npm run prove -- --lives --seed 7    the lives of an earlier run again
 *     npm run prove -- --tables     writes the tables of docs/store.md anew
 */
import fs from 'node:fs'
import { parseArgs } from 'node:util'
import { liveShared, type RealmName } from '../lives/share.ts'
import { type CounterExample, proofModels } from './proof.ts'
import { type Part, parts } from './reality.ts'
import {
  mistakesTable,
  openingTable,
  replaceTable,
  statesTable,
  storeDocument,
  type TableName,
  wearTable,
} from './tables.ts'
import { type Bite, makeWorkspace, proveAll, type Row } from './whole.ts'

const { values: wanted } = parseArgs({
  options: {
    reality: { type: 'boolean', default: false },
    lives: { type: 'boolean', default: false },
    tables: { type: 'boolean', default: false },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
  },
})

const print = (line = ''): void => void process.stdout.write(`${line}\n`)
const column = (value: unknown): string => String(value ?? '').padStart(10)

function explain({ model, point, expected, found, tree }: CounterExample): void {
  print(`    model      ${model}`)
  print(`    crash      ${point}`)
  print(`    expected   ${expected.join(', or: ')}`)
  print(`    found      ${found}`)
  for (const line of tree) print(`               ${line}`)
}

function tell(result: Row | Bite): void {
  if ('mistake' in result) {
    if (bitesTold++ === 0) print('\nMistakes made on purpose\n')
    print(`${result.caught ? 'caught' : 'MISSED'}  ${result.mistake}`)
    if (!result.caught) return
    const { model, point, found } = result.caught
    print(`          ${point} (${model})`)
    print(`          ${found}`)
    return
  }
  const { scenario, operations, states, failures } = result
  const counts = proofModels.map((model) => column(states[model]))
  print(
    `${scenario.padEnd(30)}${column(operations || '')}${counts.join('')}${column(failures.length)}`,
  )
  for (const failure of failures) explain(failure)
}

let bitesTold = 0
const began = performance.now()
print('States that a crash may leave, opened by the store\n')
const heads = ['operations', ...proofModels, 'failing']
print(`${''.padEnd(30)}${heads.map(column).join('')}`)
const { rows, bites, opened } = await proveAll(tell)
const tried = rows.flatMap(({ states }) => Object.values(states)).reduce((a, b) => a + b, 0)
const failing = rows.reduce((sum, { failures }) => sum + failures.length, 0)
const missed = bites.filter(({ caught }) => !caught).length
print(
  `\n${tried} states tried (${opened} distinct), ${failing} failing; ` +
    `${bites.length - missed} of ${bites.length} mistakes caught; ${seconds(began)} s`,
)

const count = { passed: 0, failed: 0, skipped: 0 }
for (const { failures } of rows) count[failures.length > 0 ? 'failed' : 'passed']++
for (const { caught } of bites) count[caught ? 'passed' : 'failed']++

if (wanted.reality) {
  print('\nReal processes and real disks\n')
  print(`${'tried'.padStart(8)}${'failing'.padStart(9)}${'s'.padStart(6)}`)
  const workspace = makeWorkspace()
  for (const part of parts) await realise(part, workspace)
  fs.rmSync(workspace, { recursive: true })
}

if (wanted.lives) {
  print('\nLives of devices with a hostile vending server, killed at any step\n')
  await tellLives('memory', 10_000)
  await tellLives('processes', 200)
}

async function tellLives(realm: RealmName, lives: number): Promise<void> {
  const start = performance.now()
  const { tally, seed, counterExample } = await liveShared(realm, {
    count: lives,
    seed: Number(wanted.seed),
  })
  count[counterExample ? 'failed' : 'passed']++
  const { boots, killed, requests, made, endings } = tally
  print(
    `${tally.lives} lives in ${realm === 'memory' ? 'this process' : 'processes over TLS'}, ` +
      `${counterExample ? 1 : 0} failing; seed ${seed}; ${seconds(start)} s`,
  )
  print(`    ${boots} boots, ${killed} of them killed; ${requests} requests; ${made} certificates`)
  const list = Object.entries(endings).map(([name, lots]) => `${name} ${lots}`)
  print(`    first boot in peace: ${list.join(', ')}; then all online`)
  for (const line of counterExample ?? []) print(`    ${line}`)
}

async function realise({ name, run, missing }: Part, workspace: string): Promise<void> {
  const reason = await missing?.(workspace)
  if (reason !== undefined) {
    count.skipped++
    print(`${'skipped'.padStart(8)}${''.padStart(15)}  ${name}: ${reason}`)
    return
  }
  const start = performance.now()
  const { tried, failures, detail } = await run(workspace)
  count[failures.length > 0 ? 'failed' : 'passed']++
  const numbers = [
    String(tried).padStart(8),
    String(failures.length).padStart(9),
    String(seconds(start)).padStart(6),
  ]
  print(`${numbers.join('')}  ${name}${detail ? `: ${detail}` : ''}`)
  for (const failure of failures.slice(0, 10)) print(`                           ${failure}`)
}

function seconds(since: number): number {
  return Math.round((performance.now() - since) / 1000)
}

if (wanted.tables) {
  const workspace = makeWorkspace()
  const tables = {
    states: statesTable({ rows, bites, opened }),
    mistakes: mistakesTable(),
    wear: await wearTable(workspace),
    opening: openingTable(),
  }
  let text = fs.readFileSync(storeDocument, 'utf8')
  for (const [name, content] of Object.entries(tables))
    text = replaceTable(text, name as TableName, content)
  fs.writeFileSync(storeDocument, text)
  fs.rmSync(workspace, { recursive: true })
  print(`\n${storeDocument} written`)
}

print(`\nprove: ${count.passed} passed, ${count.failed} failed, ${count.skipped} skipped`)
if (count.failed > 0) process.exitCode = 1
