/**
 * The log: one line per event, JSON for machines and a sentence for people.
 *
 * Only the fields listed here are written, so a secret has no field to travel in. Event names and
 * field names are stable: what reads them may rely on them. Instants are ISO 8601, durations are in
 * milliseconds.
 */
import type { CertvendError, Clock, EnrollEvent } from '@certvend/client'
import { inWords } from './wording.ts'

/** A failure as the log shows it. */
export interface LoggedFailure {
  readonly code: string
  readonly remedy: string
  readonly message: string
  readonly hint: string
}

/** One line of the log: known fields only, so that a secret has none to travel in. */
export type LogEvent =
  | { readonly event: 'agent.start'; readonly version: string; readonly stateDirectory: string }
  | { readonly event: 'agent.stop'; readonly message: string }
  /** Opening the store found damage and mended it. */
  | { readonly event: 'store.mended'; readonly message: string }
  /** The store cannot be written to; the credential in it is used all the same. */
  | ({ readonly event: 'store.unwritable' } & LoggedFailure)
  /** A credential was there: nobody is asked. */
  | {
      readonly event: 'credential.found'
      readonly deviceSerial: string
      readonly thingName: string
      readonly certificateId: string
      readonly notAfter: Date
    }
  /** What asking takes was taken away since the start. */
  | { readonly event: 'claim.unusable'; readonly message: string }
  /** The vending machine is asked without TLS, where anybody on the way reads token and key. */
  | { readonly event: 'server.plain'; readonly host: string }
  /** `certvend status` cannot ask this daemon; all else works. */
  | { readonly event: 'socket.unusable'; readonly message: string }
  /** Answering at a socket failed by a defect; whoever asked was told so, all else works. */
  | { readonly event: 'socket.failed'; readonly message: string }
  /** The metrics file cannot be written; all else works. */
  | { readonly event: 'metrics.unwritable'; readonly message: string }
  | { readonly event: 'config.reloaded' }
  /** What was read on SIGHUP cannot be used; what was read before still holds. */
  | { readonly event: 'config.refused'; readonly message: string }
  /** A token was moved from where everybody reads it into the state directory. */
  | { readonly event: 'token.imported'; readonly path: string }
  /** A file that should hold a token does not; it was left alone. */
  | { readonly event: 'token.unusable'; readonly path: string; readonly message: string }
  /** A token lies where it should not, and a person must remove it. */
  | { readonly event: 'token.exposed'; readonly path: string; readonly message: string }
  /** Our copy of the token is gone: the first session has proven the credential. */
  | { readonly event: 'token.destroyed'; readonly path: string }
  | Exclude<EnrollEvent, { event: 'enroll.retry' }>
  | ({ readonly event: 'enroll.retry'; readonly waitMs: number } & LoggedFailure)
  | {
      readonly event: 'session.open'
      readonly thingName: string
      readonly host: string
      readonly port: number
    }
  /** An open session ended without our doing. */
  | ({ readonly event: 'session.lost'; readonly waitMs: number } & LoggedFailure)
  /** A session did not come about. */
  | ({ readonly event: 'session.retry'; readonly waitMs: number } & LoggedFailure)
  | { readonly event: 'session.closed' }
  | { readonly event: 'publish.acknowledged'; readonly topic: string }
  | ({ readonly event: 'publish.refused'; readonly topic: string } & LoggedFailure)
  /** A successor has opened a session, and is the credential in use from here on. */
  | {
      readonly event: 'renew.proven'
      readonly deviceSerial: string
      readonly thingName: string
      readonly certificateId: string
      readonly notAfter: Date
    }
  /** A successor has opened none; the one before is shown again. */
  | ({ readonly event: 'renew.unproven' } & LoggedFailure)
  /** No successor was to be had; the one in use stays in use. */
  | ({ readonly event: 'renew.failed' } & LoggedFailure)
  /** The same, where nobody had asked for one: the agent asks again by itself. */
  | ({ readonly event: 'renew.retry'; readonly waitMs: number } & LoggedFailure)
  /** It is time for a successor, and only a person can see to it. */
  | { readonly event: 'renew.needed'; readonly message: string; readonly hint: string }
  /** Everything was removed, as somebody asked; nobody is asked again until told to. */
  | { readonly event: 'forget.done'; readonly stateDirectory: string }
  /** The vending machine was not told that its certificate is given up. */
  | ({ readonly event: 'forget.untold' } & LoggedFailure)

/** Told of what happens, as it happens. */
export type Log = (event: LogEvent) => void

type FieldName = LogEvent extends infer E ? (E extends LogEvent ? keyof E : never) : never

/** Every field there is, in the order in which they are written. */
const fields: readonly Exclude<FieldName, 'event'>[] = [
  'version',
  'stateDirectory',
  'path',
  'deviceSerial',
  'thingName',
  'certificateId',
  'notAfter',
  'generation',
  'host',
  'port',
  'topic',
  'code',
  'remedy',
  'message',
  'hint',
  'waitMs',
]

/** The event as one line of JSON, without line break: `{"time":…,"event":…,…}`. */
export function jsonLine(event: LogEvent, now: Date): string {
  const known = fields.flatMap((name) => {
    const value = (event as Partial<Record<string, unknown>>)[name]
    return value === undefined ? [] : [[name, value] as const]
  })
  return JSON.stringify({ time: now, event: event.event, ...Object.fromEntries(known) })
}

/** Writes events line by line, as JSON or for a person. */
export function openLog(
  write: (line: string) => void,
  { json, clock }: { readonly json: boolean; readonly clock: Clock },
): Log {
  return (event) => {
    const now = clock.now()
    write(json ? jsonLine(event, now) : `${now.toTimeString().slice(0, 8)}  ${inWords(event)}`)
  }
}

/** The loggable part of an error. */
export const loggedFailure = ({ code, remedy, message, hint }: CertvendError): LoggedFailure => ({
  code,
  remedy,
  message,
  hint,
})

/** Rounded for the log; a wait is not a measurement. */
export const loggedWait = (waitMs: number): { waitMs: number } => ({ waitMs: Math.round(waitMs) })
