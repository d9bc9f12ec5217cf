/**
 * One JSON line per event, of known fields only: a token, a key or a request body has no field to
 * travel in, and a field that is not listed here is not written even if a caller smuggles it in.
 */
import type { Clock } from './clock.ts'

/** What can be said about an event. Every field is optional but `event`. */
export interface LogEvent {
  /** What happened, such as `enrolled`, `refused`, `alarm`. */
  readonly event: string
  /** `alarm` asks for a person; the default is `info`. */
  readonly level?: 'info' | 'warning' | 'error' | 'alarm'
  /** Which operation, by name: never the request's path, which a caller chooses. */
  readonly operation?: string
  /** HTTP status. */
  readonly status?: number
  /** Problem code (`@certvend/client/wire`, `problems`). */
  readonly problem?: string
  /** One sentence of ours, which never repeats a caller's content. */
  readonly reason?: string
  readonly remoteAddress?: string
  readonly deviceSerial?: string
  readonly thingName?: string
  readonly certificateId?: string
  /** SHA-256 of a SubjectPublicKeyInfo, hex. */
  readonly publicKey?: string
  readonly url?: string
  readonly host?: string
  readonly port?: number
  readonly durationMs?: number
  /** Requests since the start. */
  readonly accepted?: number
  readonly refused?: number
}

export type Log = (event: LogEvent) => void

const fields = [
  'level',
  'event',
  'operation',
  'status',
  'problem',
  'reason',
  'remoteAddress',
  'deviceSerial',
  'thingName',
  'certificateId',
  'publicKey',
  'url',
  'host',
  'port',
  'durationMs',
  'accepted',
  'refused',
] as const satisfies readonly (keyof LogEvent)[]

/** A log that writes one line of JSON per event, with the time in front. */
export function jsonLog(write: (line: string) => void, clock: Clock): Log {
  return (event) => {
    const line: Record<string, unknown> = { time: clock.now().toISOString(), level: 'info' }
    for (const field of fields) {
      const value = event[field]
      if (value !== undefined) line[field] = value
    }
    write(`${JSON.stringify(line)}\n`)
  }
}

/** A log that says nothing. */
export const silent: Log = () => undefined
