/**
 * The vending server of one life and the door behind it, as hostile as it is told to be; it keeps
 * the books that the device is judged by. No input and output.
 */
import { createHash, createPublicKey } from 'node:crypto'
import type { Endpoint, Issued, SendResponse } from '@certvend/client'
import { mediaTypes, type ProblemCode, problems, problemType } from '@certvend/client/wire'
import { issuedFor } from '../prove/certificates.ts'
import type { Act, Patience } from './happenings.ts'

export const deviceSerial = 'gateway-0001'

interface Certificate {
  readonly issued: Issued
  /** SHA-256 of the public key. */
  readonly key: string
  readonly claim: number
  status: 'ACTIVE' | 'REVOKED' | 'RETIRED'
}

/** What came of a request: a response, or a broken connection and what broke it. */
export type Answer =
  | { readonly response: SendResponse; readonly half: boolean }
  | { readonly nothing: 'lost' | 'stalled' }

/** What of an answer binds the device, once it has it. */
export interface Bond {
  readonly notBefore?: number
  readonly refusedKey?: string
}

export interface World {
  /** Requests that reached the server so far. */
  readonly requests: number
  /** Certificates made so far. */
  readonly made: number
  readonly claims: number
  readonly disabled: boolean
  ask(csr: string, act: Act, now: number): { answer: Answer; bond: Bond }
  /** Whether the door opens; a certificate that came through retires those before it. */
  admits(certificateId: string): boolean
  isActive(certificateId: string): boolean
  /** Whether the server made an active certificate for this key. */
  hasCertified(key: string): boolean
  /** Whether the claim, as it stands, is another key's. */
  isSpentOn(key: string): boolean
  isRevoked(key: string): boolean
  rearm(): void
  disable(): void
  enable(): void
  revoke(which: 'first' | 'latest'): void
}

export const digestOf = (spki: Uint8Array): string =>
  createHash('sha256').update(spki).digest('hex')

/** SubjectPublicKeyInfo of a PEM certification request (RFC 2986 section 4). */
export function requestedKey(csr: string): Buffer {
  const der = Buffer.from(csr.replace(/-----[^-]+-----/g, ''), 'base64')
  /** Where the element at `at` has its content, and where it ends. */
  const element = (at: number): { from: number; to: number } => {
    const first = der[at + 1] ?? 0
    const bytes = first < 0x80 ? 0 : first & 0x7f
    const length = bytes === 0 ? first : der.readUIntBE(at + 2, bytes)
    const from = at + 2 + bytes
    return { from, to: from + length }
  }
  const info = element(element(0).from)
  const version = element(info.from)
  const subject = element(version.to)
  return der.subarray(subject.to, element(subject.to).to)
}

const longestMs = 24 * 60 * 60_000

/** The header, and the moment that it means. */
function patienceOf(
  patience: Patience | undefined,
  now: number,
): { headers: Record<string, string>; notBefore?: number } {
  if (!patience) return { headers: {} }
  const { seconds, as } = patience
  const at = now + Math.min(seconds * 1000, longestMs)
  if (as === 'seconds') return { headers: { 'retry-after': String(seconds) }, notBefore: at }
  const date = new Date(now + seconds * 1000)
  // An HTTP-date has no fractions of a second.
  return { headers: { 'retry-after': date.toUTCString() }, notBefore: Math.min(at, at - 1000) }
}

function reordered(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  return Object.fromEntries(
    Object.entries(value)
      .reverse()
      .map(([name, one]) => [name, reordered(one)]),
  )
}

function embroidered(value: unknown): unknown {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return value
  const inner = Object.entries(value).map(([name, one]) => [name, embroidered(one)])
  return { version: 99, privateKey: 'MALLORY', ...Object.fromEntries(inner), pins: ['MALLORY'] }
}

const respond = (
  status: number,
  type: string | undefined,
  body: string,
  headers: Record<string, string> = {},
): SendResponse => ({
  status,
  headers: { ...(type ? { 'content-type': type } : {}), ...headers },
  body: Buffer.from(body),
})

const problem = (code: ProblemCode, headers: Record<string, string> = {}): SendResponse =>
  respond(
    problems[code],
    mediaTypes.problem,
    JSON.stringify({ type: problemType(code), title: code }),
    headers,
  )

function garbled(as: (Act & { do: 'garble' })['as']): SendResponse {
  switch (as) {
    case 'portal':
      return respond(200, 'text/html', '<html>Welcome to our Wi-Fi</html>')
    case 'redirect':
      return respond(302, undefined, '', { location: 'https://elsewhere.example/' })
    case 'empty':
      return respond(200, mediaTypes.json, '')
    case 'cut short':
      return respond(200, mediaTypes.json, `{"deviceSerial":"${deviceSerial}","thi`)
    case 'internal':
      return problem('internal')
  }
}

/** @param oneKey whether a claim is held to the first key that it was used with. */
export function createWorld({ oneKey, endpoint }: { oneKey: boolean; endpoint?: Endpoint }): World {
  const certificates: Certificate[] = []
  const refusedKeys = new Set<string>()
  let requests = 0
  let claims = 1
  let disabled = false
  let holder: string | undefined

  const find = (key: string): Certificate | undefined =>
    certificates.find((one) => one.key === key && one.claim === claims)
  const isSpentOn = (key: string): boolean => oneKey && holder !== undefined && holder !== key
  const isRevoked = (key: string): boolean =>
    certificates.some((one) => one.key === key && one.status === 'REVOKED')

  /** What an honest server says: a certificate, made now or before, or why there is none. */
  function decide(spki: Buffer): Certificate | ProblemCode {
    const key = digestOf(spki)
    if (disabled) return 'device-disabled'
    if (refusedKeys.has(key)) return 'key-in-use'
    if (isSpentOn(key)) return 'claim-spent'
    const held = find(key)
    if (held?.status === 'ACTIVE') return held
    if (held?.status === 'RETIRED') return 'claim-spent'
    if (held) return 'certificate-revoked'
    if (isRevoked(key)) return 'key-revoked'
    const publicKey = createPublicKey({ key: spki, format: 'der', type: 'spki' })
    holder = key
    const made: Certificate = {
      issued: issuedFor(publicKey, certificates.length + 1),
      key,
      claim: claims,
      status: 'ACTIVE',
    }
    certificates.push(made)
    return made
  }

  const bodyOf = ({ issued }: Certificate) => ({
    deviceSerial: issued.deviceSerial,
    thingName: issued.thingName,
    certificateId: issued.certificateId,
    certificateChain: [issued.certificateChain],
    endpoint: endpoint ?? { ...issued.endpoint, trustAnchors: [...issued.endpoint.trustAnchors] },
  })

  function cheat(act: Act & { do: 'cheat' }, made: Certificate): unknown {
    const body = bodyOf(made)
    switch (act.by) {
      case 'another key': {
        const { publicKey } = strangersKey
        const { certificateChain, certificateId } = issuedFor(publicKey, 0x7fff)
        return { ...body, certificateChain: [certificateChain], certificateId }
      }
      case 'another serial':
        return { ...body, deviceSerial: 'gateway-0002' }
      case 'another id':
        return { ...body, certificateId: '0'.repeat(64) }
      case 'an anchor that is no CA':
        return { ...body, endpoint: { ...body.endpoint, trustAnchors: body.certificateChain } }
    }
  }

  function ask(csr: string, act: Act, now: number): { answer: Answer; bond: Bond } {
    requests++
    const whole = (response: SendResponse, bond: Bond = {}) => ({
      answer: { response, half: false },
      bond,
    })
    const nothing = (why: 'lost' | 'stalled') => ({ answer: { nothing: why }, bond: {} }) as const
    const spki = requestedKey(csr)
    const key = digestOf(spki)
    const refusals = (code: ProblemCode) =>
      whole(problem(code), code.startsWith('key-') ? { refusedKey: key } : {})

    if ('issued' in act && act.issued) decide(spki)
    switch (act.do) {
      case 'lose':
        if (act.what === 'request') return nothing('lost')
        break
      case 'stall':
        return nothing('stalled')
      case 'busy': {
        const { headers, notBefore } = patienceOf(act.patience, now)
        const bond = notBefore === undefined ? {} : { notBefore }
        return whole(respond(act.status, 'text/html', '<html>later</html>', headers), bond)
      }
      case 'defer': {
        const { headers, notBefore } = patienceOf(act.patience, now)
        return whole(
          respond(202, undefined, '', headers),
          notBefore === undefined ? {} : { notBefore },
        )
      }
      case 'garble':
        return whole(garbled(act.as))
      case 'refuse key':
        refusedKeys.add(key)
        return refusals('key-in-use')
    }
    const decided = decide(spki)
    if (act.do === 'lose' && act.what === 'reply') return nothing('lost')
    if (typeof decided === 'string') return refusals(decided)
    const body = act.do === 'cheat' ? cheat(act, decided) : bodyOf(decided)
    const dress = act.do === 'answer' ? act.dress : 'plain'
    const dressed =
      dress === 'reordered' ? reordered(body) : dress === 'embroidered' ? embroidered(body) : body
    const response = respond(200, mediaTypes.json, JSON.stringify(dressed))
    return { answer: { response, half: act.do === 'lose' }, bond: {} }
  }

  return {
    get requests() {
      return requests
    },
    get made() {
      return certificates.length
    },
    get claims() {
      return claims
    },
    get disabled() {
      return disabled
    },
    ask,
    admits(certificateId) {
      const found = certificates.findIndex(({ issued }) => issued.certificateId === certificateId)
      if (certificates[found]?.status !== 'ACTIVE') return false
      for (const earlier of certificates.slice(0, found))
        if (earlier.status === 'ACTIVE') earlier.status = 'RETIRED'
      return true
    },
    isActive: (certificateId) =>
      certificates.some(
        ({ issued, status }) => issued.certificateId === certificateId && status === 'ACTIVE',
      ),
    hasCertified: (key) =>
      !refusedKeys.has(key) &&
      certificates.some((one) => one.key === key && one.status === 'ACTIVE'),
    isSpentOn,
    isRevoked,
    rearm() {
      claims++
      holder = undefined
    },
    disable() {
      disabled = true
    },
    enable() {
      disabled = false
    },
    revoke(which) {
      const found = which === 'first' ? certificates[0] : certificates.at(-1)
      if (found) found.status = 'REVOKED'
    },
  }
}

const strangersKey = {
  publicKey: createPublicKey({
    key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), Buffer.alloc(32, 9)]),
    format: 'der',
    type: 'spki',
  }),
}
