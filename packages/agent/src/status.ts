/**
 * The status document: who am I, is there a credential, until when, what is pending, what is wrong.
 *
 * Read from the store alone, without its lock, so that it is true beside a running daemon.
 */
import {
  CertvendError,
  type Credential,
  type CredentialStore,
  isCertvendError,
  openCredentialStore,
  type Pending,
  type VendedBy,
} from '@certvend/client'
import type { ConsumersRecord } from './consumers.ts'
import { type Outlook, outlookOf, type Ways } from './due.ts'
import type { Episode } from './journal.ts'
import type { LiveDocument } from './live.ts'
import { clockTime, day, duration } from './wording.ts'

/** A credential without its secret. Instants are ISO 8601. */
export interface CredentialDocument {
  readonly deviceSerial: string
  readonly thingName: string
  readonly certificateId: string
  readonly generation: number
  /** `server`: made elsewhere, and brought here over the network. */
  readonly keyOrigin: 'device' | 'server'
  /** Where the certificate came from, as far as that was kept. */
  readonly vendedBy?: VendedBy
  readonly issuedAt: string
  readonly notBefore: string
  readonly notAfter: string
  readonly endpoint: { readonly host: string; readonly port: number }
}

export interface PendingDocument {
  /** `requested`: a key without its certificate; `issued`: a successor that has yet to prove itself. */
  readonly state: 'requested' | 'issued'
  readonly generation: number
  /** The vending server asked not to be asked before. */
  readonly notBefore?: string
  /** When a request was sent of which it is not known what it came to. */
  readonly unansweredSince?: string
}

export interface Problem {
  readonly code: string
  readonly message: string
  readonly hint: string
}

export interface RenewalDocument {
  /** When the certificate should be renewed; for a key made elsewhere, as soon as that can be. */
  readonly dueAt: string
  /** Why the agent does not do it by itself, and what a person does. */
  readonly obstacle?: { readonly message: string; readonly hint: string }
}

/** What `certvend status --json` prints; secret-free. */
export interface StatusDocument {
  readonly version: 1
  readonly stateDirectory: string
  /**
   * `none`: never enrolled. `requested`: a key is made, the certificate is not here yet. `valid`,
   * `not-yet-valid`, `expired`: the credential, by this device's clock. `unreadable`: see problems.
   */
  readonly state: 'none' | 'requested' | 'valid' | 'not-yet-valid' | 'expired' | 'unreadable'
  readonly credential?: CredentialDocument
  readonly pending?: PendingDocument
  /** Present with a credential, where the settings are known. */
  readonly renewal?: RenewalDocument
  /** What the running agent says of itself; absent when none answered. */
  readonly live?: LiveDocument
  /** What the running agent remembers of the last thing that went wrong, over or not. */
  readonly lastFailure?: Episode
  /** What the last round of handing the identity on came to; absent where nothing is handed on. */
  readonly consumers?: ConsumersRecord
  readonly problems: readonly Problem[]
  /** What opening the store mended. */
  readonly mended: readonly string[]
}

export function describeCredential(credential: Credential): CredentialDocument {
  const { deviceSerial, thingName, certificateId, generation, keyOrigin } = credential
  const { host, port } = credential.endpoint
  return {
    deviceSerial,
    thingName,
    certificateId,
    generation,
    keyOrigin,
    ...(credential.vendedBy ? { vendedBy: credential.vendedBy } : {}),
    issuedAt: credential.issuedAt.toISOString(),
    notBefore: credential.notBefore.toISOString(),
    notAfter: credential.notAfter.toISOString(),
    endpoint: { host, port },
  }
}

function describePending(pending: Pending): PendingDocument {
  const { state, generation } = pending
  const request = pending.state === 'requested' ? pending.request : undefined
  return {
    state,
    generation,
    ...(request?.notBefore ? { notBefore: request.notBefore.toISOString() } : {}),
    ...(request?.unanswered ? { unansweredSince: request.sentAt.toISOString() } : {}),
  }
}

export const describeRenewal = ({ dueAt, ...rest }: Outlook): RenewalDocument => ({
  dueAt: dueAt.toISOString(),
  ...rest,
})

/** The status of the store in `directory`; a store that cannot be read is a status, too. */
export async function readStatus(
  directory: string,
  now: Date,
  ways?: Ways,
): Promise<StatusDocument> {
  try {
    return statusOf(await openCredentialStore(directory, { readOnly: true }), now, ways)
  } catch (error) {
    if (!isCertvendError(error)) throw error
    return {
      version: 1,
      stateDirectory: directory,
      state: 'unreadable',
      problems: [problemOf(error)],
      mended: [],
    }
  }
}

/** @param ways how this gateway renews, for {@link StatusDocument.renewal} */
export function statusOf(store: CredentialStore, now: Date, ways?: Ways): StatusDocument {
  const current = store.current()
  const pending = store.pending()
  const state = current ? validity(current, now) : pending ? 'requested' : 'none'
  return {
    version: 1,
    stateDirectory: store.directory,
    state,
    ...(current ? { credential: describeCredential(current) } : {}),
    ...(pending ? { pending: describePending(pending) } : {}),
    ...(current && ways ? { renewal: describeRenewal(outlookOf(current, ways, now)) } : {}),
    problems: current ? problemsOf(current, now) : [],
    mended: [...store.mended],
  }
}

const validity = ({ notBefore, notAfter }: Credential, now: Date): StatusDocument['state'] =>
  now < notBefore ? 'not-yet-valid' : now > notAfter ? 'expired' : 'valid'

const problemOf = ({ code, message, hint }: CertvendError): Problem => ({ code, message, hint })

function problemsOf(credential: Credential, now: Date): Problem[] {
  const clock = `this device's clock says ${now.toISOString()}`
  switch (validity(credential, now)) {
    case 'expired':
      return [
        {
          code: 'ERR_CREDENTIAL_EXPIRED',
          message: `the certificate expired on ${day(credential.notAfter)}; ${clock}`,
          hint: new CertvendError('ERR_CREDENTIAL_EXPIRED', '').hint,
        },
      ]
    case 'not-yet-valid':
      return [
        {
          code: 'ERR_CLOCK',
          message: `the certificate is valid from ${day(credential.notBefore)}; ${clock}`,
          hint: "set this device's clock (timedatectl, chronyc)",
        },
      ]
    default:
      return []
  }
}

/** The document as people read it. */
export function statusInWords(status: StatusDocument, now: Date): string {
  const { credential, pending } = status
  const row = (name: string, value: string): string => `${name.padEnd(14)}${value}`
  const left = credential ? Date.parse(credential.notAfter) - now.getTime() : 0
  const lines = [
    row('state', stateInWords(status.state)),
    ...(credential
      ? [
          row('device', credential.deviceSerial),
          row('thing', credential.thingName),
          row('certificate', credential.certificateId),
          row(
            'valid until',
            `${day(new Date(credential.notAfter))}${left > 0 ? ` (${duration(left)} left)` : ''}`,
          ),
          ...(credential.keyOrigin === 'server'
            ? [row('private key', keyInWords(credential))]
            : []),
          row('connects to', `${credential.endpoint.host}:${credential.endpoint.port}`),
        ]
      : []),
    ...(pending?.notBefore ? [row('asks again', `not before ${pending.notBefore}`)] : []),
    ...(pending?.unansweredSince
      ? [row('unanswered', `a request of ${pending.unansweredSince}; it may have been granted`)]
      : []),
    ...renewalRows(status, now).map(([name, value]) => row(name, value)),
    ...(pending?.state === 'issued' ? [row('pending', 'a successor has yet to prove itself')] : []),
    row('agent', agentInWords(status.live)),
    ...(status.live?.nextAt ? [row('next try', clockTime(status.live.nextAt))] : []),
    row('stored in', status.stateDirectory),
    ...status.mended.map((what) => row('mended', what)),
    ...[...status.problems, ...(status.live?.problem ? [status.live.problem] : [])].flatMap(
      ({ code, message, hint }) => [
        row('problem', `${message} (${code})`),
        row('', `hint: ${hint}`),
      ],
    ),
  ]
  return `${lines.join('\n')}\n`
}

function renewalRows(
  { renewal, pending, live }: StatusDocument,
  now: Date,
): [name: string, value: string][] {
  if (!renewal || pending?.state === 'issued') return []
  const words = renewalInWords(renewal, now)
  if (renewal.obstacle || !live?.renewal) return words.map((line, i) => [i ? '' : 'renews', line])
  const { failedInARow, nextAt, problem } = live.renewal
  return [
    ['renews', `${words[0]}; ${failedInARow} failed, the next try is at ${clockTime(nextAt)}`],
    ['', `${problem.message} (${problem.code})`],
    ['', `hint: ${problem.hint}`],
  ]
}

/** When, and by whom: one line, or two. */
export function renewalInWords({ dueAt, obstacle }: RenewalDocument, now: Date): string[] {
  const when = `${Date.parse(dueAt) > now.getTime() ? 'on' : 'due since'} ${day(new Date(dueAt))}`
  return obstacle
    ? [`${when}, not by itself: ${obstacle.message}`, `hint: ${obstacle.hint}`]
    : [`${when}, by itself`]
}

/** Plainly, for whoever asks who else may know the key. */
function keyInWords({ vendedBy }: CredentialDocument): string {
  if (!vendedBy) return 'not made on this device'
  const plain = vendedBy.url.startsWith('http:')
    ? ', over plain HTTP, where anybody may read it'
    : ''
  return `made by the vending machine (${vendedBy.dialect}) and sent here${plain}`
}

function agentInWords(live: LiveDocument | undefined): string {
  if (!live) return 'not running, or not for this user to ask'
  if (live.connection === 'forgotten')
    return `waiting: everything was removed, as somebody asked, at ${clockTime(live.since)}`
  return live.connection === 'waiting'
    ? `not online since ${clockTime(live.since)}, ${live.failedInARow} attempts failed in a row`
    : live.connection === 'online'
      ? `online since ${clockTime(live.since)}`
      : live.connection
}

/** 0 online · 1 not now · 3 a person must act. */
export function checkOf({ state, live, problems }: StatusDocument): 0 | 1 | 3 {
  if (live?.connection === 'online') return 0
  if (state === 'unreadable' || state === 'expired') return 3
  return live?.problem && live.problem.remedy !== 'retry' ? 3 : problems.length > 0 ? 3 : 1
}

function stateInWords(state: StatusDocument['state']): string {
  switch (state) {
    case 'none':
      return 'not enrolled; certvend enroll or certvend run asks for a certificate'
    case 'requested':
      return 'a key is made, its certificate is not here yet; certvend enroll or run asks again'
    case 'valid':
      return 'enrolled'
    case 'not-yet-valid':
      return 'enrolled, but the certificate is not valid yet'
    case 'expired':
      return 'enrolled, but the certificate has expired'
    case 'unreadable':
      return 'unknown'
  }
}
