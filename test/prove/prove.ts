/**
 * `npm run prove`: the crash proof of the credential store, printed as two tables.
 *
 *     npm run prove                 the states a crash may leave; about a minute
 *     npm run prove -- --reality    also real kills, faults, full disks and power cuts; minutes
 */
import { type CounterExample, proofModels } from './proof.ts'
import { type Bite, proveAll, type Row } from './whole.ts'

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
print()
print(
  `${tried} states tried (${opened} distinct), ${failing} failing; ` +
    `${bites.length - missed} of ${bites.length} mistakes caught; ` +
    `${Math.round((performance.now() - began) / 1000)} s`,
)
if (failing > 0 || missed > 0) process.exitCode = 1
