/**
 * All consumers, one after the other in the order of the configuration, and the record of it.
 *
 * Run as root by a unit of its own, never by the daemon: see docs/consumers.md.
 */
import fs from 'node:fs'
import path from 'node:path'
import type { Clock, Credential } from '@certvend/client'
import { createFile, makeDirectory, remove, replaceFile } from '@certvend/client/durable'
import * as v from 'valibot'
import { type ConsumerResult, deliver, isSettled } from './consumer.ts'
import type { ConsumerSettings } from './consumer-settings.ts'
import { configurationError } from './failure.ts'
import { eraseSets, sweep } from './file-set.ts'
import { readPlainFile } from './plain-file.ts'
import type { Run } from './run-program.ts'

export interface ConsumersRecord {
  readonly version: 1
  readonly at: string
  readonly consumers: readonly ConsumerResult[]
}

export interface Round {
  readonly credential: Credential
  readonly run: Run
  readonly clock: Clock
  readonly signal: AbortSignal
  /** Where the record goes, for `certvend status`; no disk is meant. */
  readonly recordDirectory: string
  /** Where a round that was cut off is noticed by, over a power cut too. */
  readonly markDirectory: string
  readonly onResult?: (result: ConsumerResult) => void
}

export const consumersPlaces = {
  /** The record of the last round; made anew at each boot. */
  record: '/run/certvend-consumers',
  /** The mark of a round that was cut off. */
  mark: '/var/lib/certvend-consumers',
} as const

const recordFile = (directory: string): string => path.join(directory, 'consumers.json')
const markFile = (directory: string): string => path.join(directory, 'unfinished')
const listFile = (directory: string): string => path.join(directory, 'directories')

/**
 * Hands the credential to each consumer. One that fails keeps nobody from being served.
 *
 * The sets before stay on disk until every consumer is well with the new.
 *
 * @throws {CertvendError} `ERR_STORE_UNWRITABLE` when the record or the mark cannot be written
 */
export async function runConsumers(
  consumers: readonly ConsumerSettings[],
  round: Round,
): Promise<ConsumersRecord> {
  const { credential, clock, recordDirectory, markDirectory } = round
  const mark = markFile(markDirectory)
  if (!fs.existsSync(mark) && !consumers.every((one) => settled(one, credential))) {
    makeDirectory(markDirectory)
    createFile(mark, '')
  }
  list(consumers, markDirectory)
  const results: ConsumerResult[] = []
  for (const consumer of consumers) {
    const result = await deliver(consumer, credential, round)
    results.push(result)
    round.onResult?.(result)
  }
  if (results.every(isWell)) for (const { directory } of consumers) sweep(directory)
  const record = { version: 1 as const, at: clock.now().toISOString(), consumers: results }
  makeDirectory(recordDirectory, 0o755)
  replaceFile(recordFile(recordDirectory), `${JSON.stringify(record, undefined, 2)}\n`, {
    mode: 0o644,
  })
  // Also when one is not well: its next chance is the next change, or a person.
  remove(mark)
  return record
}

/**
 * Every directory that was ever handed a key, one in a line: what `erase` and the removal of the
 * package look through, also when the configuration has forgotten it.
 */
function list(consumers: readonly ConsumerSettings[], markDirectory: string): void {
  const before = listed(markDirectory)
  const all = [...new Set([...before, ...consumers.map(({ directory }) => directory)])].sort()
  if (all.length === before.length) return
  makeDirectory(markDirectory)
  replaceFile(listFile(markDirectory), all.map((directory) => `${directory}\n`).join(''))
}

function listed(markDirectory: string): readonly string[] {
  const file = listFile(markDirectory)
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8').split('\n').filter(Boolean) : []
}

/** Erases every copy that was handed on, and the list of them; the directories that it looked through. */
export function eraseHandedOn(markDirectory: string): readonly string[] {
  const directories = listed(markDirectory)
  for (const directory of directories) eraseSets(directory)
  remove(listFile(markDirectory))
  remove(markFile(markDirectory))
  return directories
}

function settled(consumer: ConsumerSettings, credential: Credential): boolean {
  try {
    return isSettled(consumer, credential)
  } catch {
    return false // which deliver says in words
  }
}

const Result = v.object({
  name: v.string(),
  state: v.picklist(['unchanged', 'delivered', 'rolled-back', 'unhealthy', 'failed']),
  certificateId: v.string(),
  reason: v.optional(v.string()),
})
const RecordFile = v.object({
  version: v.literal(1),
  at: v.string(),
  consumers: v.array(Result),
})

/** What the last round came to; nothing when there was none since this machine started. */
export function readConsumersRecord(directory: string): ConsumersRecord | undefined {
  try {
    const file = { value: recordFile(directory), from: 'consumers' }
    const result = v.safeParse(RecordFile, JSON.parse(readPlainFile('the record', file).text))
    if (!result.success) return undefined
    const { consumers, ...rest } = result.output
    return {
      ...rest,
      consumers: consumers.map(({ reason, ...one }) => (reason ? { ...one, reason } : one)),
    }
  } catch {
    return undefined
  }
}

/** Whether it has the credential that it was to get, and is well. */
export const isWell = ({ state }: ConsumerResult): boolean =>
  state === 'unchanged' || state === 'delivered'

export function resultInWords({ name, state, reason }: ConsumerResult): string {
  const words = {
    unchanged: 'has the present identity, and was left alone',
    delivered: 'has the new identity and is well',
    'rolled-back': 'has its previous identity back',
    unhealthy: 'is not well with the new identity, and had none before',
    failed: 'was not given the new identity',
  }[state]
  return `${name}: ${words}${reason === undefined ? '' : `: ${reason}`}`
}

/**
 * Refuses a configuration that somebody else than root, or this user, could have written: it names
 * programs to run.
 *
 * @throws a configuration error
 */
export function judgeConfigurationOwner(file: string): void {
  const me = process.getuid?.() ?? 0
  for (const target of [file, path.dirname(file)]) {
    const found = fs.statSync(target)
    if (found.uid !== 0 && found.uid !== me)
      throw configurationError(
        `${target} belongs to user ${found.uid}; consumers are read from root's files only`,
        `chown root ${target}`,
      )
    if ((found.mode & 0o022) !== 0)
      throw configurationError(
        `${target} is writable by group or others; consumers are read from root's files only`,
        `chmod go-w ${target}`,
      )
  }
}
