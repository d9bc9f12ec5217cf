/**
 * JSON records that notice their own bit rot: the last member, `digest`, is the SHA-256 of the
 * others as `JSON.stringify` writes them, in their order. A guard against disks, not against people.
 */
import { createHash } from 'node:crypto'

const digestOf = (members: object): string =>
  createHash('sha256').update(JSON.stringify(members)).digest('hex')

/** The text of `members`, sealed. */
export const seal = (members: object): string =>
  `${JSON.stringify({ ...members, digest: digestOf(members) }, undefined, 2)}\n`

/** What a text holds that {@link seal} made, or that was written before there were seals. */
export interface Unsealed {
  readonly members: object
  readonly sealed: boolean
}

/** Reads a record; nothing when it is no JSON object, or not what was sealed. */
export function unseal(text: string): Unsealed | undefined {
  let record: unknown
  try {
    record = JSON.parse(text)
  } catch {
    return undefined
  }
  if (typeof record !== 'object' || record === null) return undefined
  if (!('digest' in record)) return { members: record, sealed: false }
  const { digest, ...members } = record
  return digest === digestOf(members) ? { members, sealed: true } : undefined
}
