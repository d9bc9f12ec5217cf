/**
 * What doctor has seen. Gathered first, by `gather.ts` and what it calls; judged afterwards, by checks
 * that do no input and no output.
 */
import type {
  CertvendError,
  Credential,
  DialectName,
  DialectOptions,
  Pending,
  StoreReport,
} from '@certvend/client'
import type { ShownCertificate, Trace, VendingTrace } from '@certvend/client/trace'
import type { ConsumersRecord } from '../consumers.ts'
import type { ConfigurationError } from '../failure.ts'
import type { Episode } from '../journal.ts'
import type { Settings } from '../settings.ts'
import type { RenewalDocument, StatusDocument } from '../status.ts'

/** A value that was read, or why it was not. */
export type Read<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: ConfigurationError }

export interface OpenFile {
  readonly path: string
  readonly who: 'everybody' | 'the group'
  readonly may: 'read' | 'change'
  /** The mode it should have. */
  readonly mode: string
}

/** What enrolling would take, each judged by itself. Absent: nobody named it. */
export interface ClaimParts {
  readonly dialect: Read<DialectOptions>
  readonly url?: Read<URL>
  readonly pins: readonly { readonly file: string; readonly read: Read<ShownCertificate[]> }[]
  readonly serial: Read<string> & { readonly written: boolean }
  readonly token: Read<'present'> | 'absent'
}

export interface Space {
  /** What this user may still write, in bytes. */
  readonly bytes: number
  /** Absent where the file system makes inodes as it needs them. */
  readonly inodes?: number
  /** Whether this user may write there; absent for root beside another's store. */
  readonly writable?: boolean
  /** The directory that was looked at: the state directory, or the nearest that is there. */
  readonly at: string
}

/** What systemd says of the service. */
export interface Unit {
  readonly load: string
  readonly active: string
  readonly sub: string
  readonly result: string
  readonly file: string
  readonly restarts: number
}

export interface Daemon {
  /** What it says of itself. */
  readonly status?: StatusDocument
  /** Its door is there, and this user may not go in. */
  readonly closedToUs: boolean
}

/** What came of connecting as this device, where nobody else was. */
export interface SessionTrial {
  /** `opened`: and it held; else the step at which it ended. */
  readonly outcome: 'opened' | 'refused' | 'thrown-out' | 'publish-ended'
  readonly topic?: string
  readonly failure?: CertvendError
}

export interface Evidence {
  readonly now: Date
  /** Of this command. */
  readonly version: string
  readonly user: number
  readonly settings: Read<Settings>
  readonly proxy?: Read<string | undefined>
  readonly openFiles: readonly OpenFile[]
  readonly parts?: ClaimParts
  readonly store?: StoreReport
  readonly credential?: Credential
  readonly pending?: Pending
  readonly renewal?: RenewalDocument
  /** The certificate in use is there, and is not the key's. */
  readonly keyOfAnother?: boolean
  readonly space?: Space
  readonly unit?: Unit
  readonly daemon?: Daemon
  /** Addresses of this machine beside the loopback's and the link-local ones. */
  readonly addresses: readonly string[]
  readonly vending?: VendingTrace
  /** What the URL speaks, where it was asked for. */
  readonly spoken?: DialectName | 'unknown'
  readonly mqtt?: Trace
  /** Port 443 of the MQTT server's host, looked at when its own port did not answer. */
  readonly mqtt443?: Trace
  readonly trial?: SessionTrial
  /** Why nobody tried to connect as this device. */
  readonly untried?: string
  /** What the last round of handing on came to, since this machine started. */
  readonly handedOn?: ConsumersRecord
  /** What went wrong before, newest last; the last one may not be over. */
  readonly history: readonly Episode[]
}

/** Whose certificate this device has, as read here or as the running agent says. */
export const enrolledAs = ({ credential, daemon }: Evidence): string | undefined =>
  credential?.deviceSerial ?? daemon?.status?.credential?.deviceSerial
