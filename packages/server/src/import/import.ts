/**
 * Rows of an old table into the registry: judged one by one, added by the hundred.
 *
 * What is in the registry already, just so, is passed over: a second run finishes what the first one
 * did not. Whatever else is not taken is told, with the row's number and the reason.
 */
import type { Clock } from '../clock.ts'
import type { AddOutcome, Device, Registry } from '../registry/registry.ts'
import { createTokenJudge, hashToken, looksStrong } from '../tokens.ts'
import { type JudgedRow, judgeRow, type RowRules } from './row.ts'
import type { Rows, SourceRow } from './table.ts'

/** A row that was not taken. */
export interface NotTaken {
  /** Counted from 1. */
  readonly row: number
  /** Where it is one. */
  readonly deviceSerial?: string
  readonly reason: string
}

export interface ImportCounts {
  readonly rows: number
  /** Added, or with `dryRun` to be added. */
  readonly added: number
  /** In the registry already, with the same thing name and token. */
  readonly unchanged: number
  readonly notTaken: number
  /** Of those added: the state they have. */
  readonly spent: number
  readonly disabled: number
  readonly weak: number
}

export interface ImportOptions {
  readonly rules: RowRules
  readonly clock: Clock
  /** Judges everything, changes nothing. */
  readonly dryRun: boolean
  readonly onNotTaken: (row: NotTaken) => void
  /** Called after each batch. */
  readonly onProgress: (counts: ImportCounts) => void
  /** Ends the import after the batch that runs. */
  readonly signal: AbortSignal
}

/** Weak tokens take a tenth of a second each, so a batch of them takes about half a minute. */
const batchSize = 500

interface Judged {
  readonly number: number
  readonly row: JudgedRow
}

/**
 * Imports what `rows` gives.
 *
 * @param registry undefined for a dry run where there is none yet
 */
export async function importRows(
  rows: Rows,
  registry: Registry | undefined,
  options: ImportOptions,
): Promise<ImportCounts> {
  const { onNotTaken, onProgress, signal } = options
  const counts = { rows: 0, added: 0, unchanged: 0, notTaken: 0, spent: 0, disabled: 0, weak: 0 }
  const firstRows = { serial: new Map<string, number>(), thing: new Map<string, number>() }
  const refuse = (refused: NotTaken) => {
    counts.notTaken += 1
    onNotTaken(refused)
  }

  /** Why a row clashes with one that stands before it in the file. */
  function clash({ deviceSerial, thingName }: JudgedRow): string | undefined {
    const serialAt = firstRows.serial.get(deviceSerial)
    if (serialAt !== undefined) return `has the serial of row ${serialAt}`
    const thingAt = firstRows.thing.get(thingName)
    return thingAt === undefined ? undefined : `has the thing name of row ${thingAt}`
  }

  function judge({ number, fields }: SourceRow): Judged | undefined {
    counts.rows += 1
    const judged = judgeRow(fields, options.rules)
    if (!judged.ok) {
      const { deviceSerial, reason } = judged
      refuse({ row: number, ...(deviceSerial !== undefined && { deviceSerial }), reason })
      return undefined
    }
    const { row } = judged
    const reason = clash(row)
    if (reason) {
      refuse({ row: number, deviceSerial: row.deviceSerial, reason })
      return undefined
    }
    firstRows.serial.set(row.deviceSerial, number)
    firstRows.thing.set(row.thingName, number)
    return { number, row }
  }

  async function settle(batch: readonly Judged[]): Promise<void> {
    const outcomes = await addBatch(batch, registry, options)
    for (const [index, { outcome, weak }] of outcomes.entries()) {
      const { number, row } = batch[index]!
      if (outcome === 'unchanged') counts.unchanged += 1
      else if (outcome === 'added') {
        counts.added += 1
        if (row.disabled) counts.disabled += 1
        if (row.spentOn !== undefined) counts.spent += 1
        if (weak) counts.weak += 1
      } else refuse({ row: number, deviceSerial: row.deviceSerial, reason: reasons[outcome] })
    }
    onProgress(counts)
  }

  let batch: Judged[] = []
  for await (const source of rows) {
    const judged = judge(source)
    if (judged) batch.push(judged)
    if (batch.length < batchSize) continue
    await settle(batch)
    batch = []
    if (signal.aborted) return counts
  }
  await settle(batch)
  return counts
}

const reasons: Readonly<Record<Exclude<AddOutcome, 'added'>, string>> = {
  'serial-taken': 'is in the registry already, with another token or thing name',
  'thing-name-taken': 'has a thing name that another device in the registry has',
}

interface Settled {
  readonly outcome: AddOutcome | 'unchanged'
  readonly weak: boolean
}

async function addBatch(
  batch: readonly Judged[],
  registry: Registry | undefined,
  { clock, dryRun }: ImportOptions,
): Promise<Settled[]> {
  const settled = new Array<Settled>(batch.length)
  const fresh: number[] = []
  const known = await Promise.all(batch.map(({ row }) => registry?.find(row.deviceSerial)))
  for (const [index, device] of known.entries()) {
    if (!device) {
      fresh.push(index)
      continue
    }
    const same = await isSame(device, batch[index]!.row)
    settled[index] = { outcome: same ? 'unchanged' : 'serial-taken', weak: false }
  }
  if (dryRun || !registry) {
    for (const index of fresh)
      settled[index] = { outcome: 'added', weak: !looksStrong(batch[index]!.row.token) }
    return settled
  }
  const hashed = await Promise.all(
    fresh.map((index) => hashToken(batch[index]!.row.token, 'imported')),
  )
  const outcomes = await registry.addAll(
    fresh.map((index, at) => ({ ...batch[index]!.row, token: hashed[at]! })),
    clock.now(),
  )
  for (const [at, index] of fresh.entries())
    settled[index] = { outcome: outcomes[at]!, weak: hashed[at]!.kind === 'scrypt' }
  return settled
}

const isSame = async ({ thingName, claim }: Device, row: JudgedRow): Promise<boolean> =>
  thingName === row.thingName &&
  (await createTokenJudge()(row.token, claim.token, async () => true)) === true
