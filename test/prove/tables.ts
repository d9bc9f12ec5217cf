/** The tables of docs/store.md that this directory keeps true. */
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { openCredentialStore } from '@certvend/client'
import { recordProcess } from './comparison.ts'
import { damages } from './damages.ts'
import { createCast, stateDirectory } from './judgement.ts'
import { mistakes } from './mistakes.ts'
import { proofModels } from './proof.ts'
import { type Operation, record } from './recording.ts'
import { realScenarios } from './scenarios.ts'
import type { Proof } from './whole.ts'

const here = path.dirname(fileURLToPath(import.meta.url))
const top = here.endsWith(path.join('dist', 'prove')) ? '../../..' : '../..'
export const storeDocument: string = path.resolve(here, top, 'docs', 'store.md')

export type TableName = 'states' | 'mistakes' | 'wear' | 'opening'

const row = (...cells: readonly (string | number)[]): string => `| ${cells.join(' | ')} |`
const table = (head: readonly string[], rows: readonly string[]): string =>
  [row(...head), row(...head.map((_, index) => (index === 0 ? '---' : '---:'))), ...rows].join('\n')

export function statesTable({ rows }: Proof): string {
  return table(
    ['', 'operations', ...proofModels],
    rows.map(({ scenario, operations, states }) =>
      row(scenario, operations || '', ...proofModels.map((model) => states[model] ?? '')),
    ),
  )
}

export const mistakesTable = (): string => mistakes.map(({ name }) => `- ${name}`).join('\n')

export const openingTable = (): string =>
  [
    row('what lies there', 'what opening shows'),
    row('---', '---'),
    ...damages.map(({ name, opens }) => row(name, opens.replace(/^ERR_\w+$/, '`$&`'))),
  ].join('\n')

/** What is written to a disk, beside the certificates, which are as long as the server makes them. */
function wearOf(operations: readonly Operation[]): readonly number[] {
  const writes = operations.filter((one) => one.do === 'write')
  const own = writes.filter(({ path: name }) => !/(certificate|trust-anchors)\.pem$/.test(name))
  const names = /^(create|rename|link|symlink|unlink|mkdir|rmdir)$/
  return [
    writes.length,
    own.reduce((sum, { data }) => sum + data.length, 0),
    operations.filter((one) => names.test(one.do)).length,
    operations.filter((one) => one.do === 'sync').length,
  ]
}

export async function wearTable(workspace: string): Promise<string> {
  const lives = new Map<string, readonly Operation[]>()
  for (const scenario of realScenarios)
    lives.set(scenario.name, await recordProcess(scenario, workspace))
  lives.set('opening, and every idle day after', await recordOpening(workspace))
  return table(
    ['', 'writes', 'bytes', 'names', 'syncs'],
    [...lives].map(([name, operations]) => row(name, ...wearOf(operations))),
  )
}

async function recordOpening(workspace: string): Promise<readonly Operation[]> {
  const root = fs.mkdtempSync(path.join(workspace, 'idle-'))
  const store = await openCredentialStore(path.join(root, stateDirectory))
  const cast = createCast()
  const key = store.begin().privateKey
  cast.nameKey(key.publicKey)
  store.issue(cast.answer(key.publicKey))
  store.close()
  const opening = record(root, () => openCredentialStore(path.join(root, stateDirectory)))
  const opened = await opening.result
  const day = record(root, () => {
    for (let minute = 0; minute < 24 * 60; minute++) {
      opened.reload()
      opened.current()
    }
  })
  return [...opening.operations, ...day.operations]
}

const marks = (name: TableName): [string, string] => [
  `<!-- ${name}: made by npm run prove -- --tables -->`,
  `<!-- /${name} -->`,
]

/** What `text` says between the marks of `name`. */
export function readTable(text: string, name: TableName): string {
  const [begin, end] = marks(name)
  const start = text.indexOf(begin)
  const stop = text.indexOf(end)
  if (start < 0 || stop < start) throw new Error(`${storeDocument} has no marks for ${name}`)
  return text.slice(start + begin.length, stop).trim()
}

export function replaceTable(text: string, name: TableName, content: string): string {
  const [begin, end] = marks(name)
  readTable(text, name)
  const before = text.slice(0, text.indexOf(begin) + begin.length)
  return `${before}\n\n${content}\n\n${text.slice(text.indexOf(end))}`
}
