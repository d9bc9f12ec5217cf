/**
 * A road looked at step by step: name, address, proxy, TLS, and who vouches. Nothing is asked of
 * whoever is found at its end but what anybody may ask: no token is sent and nothing is vended.
 *
 * Nothing here throws for what it finds; a failure is part of what was seen.
 */
import { X509Certificate } from 'node:crypto'
import { lookup } from 'node:dns/promises'
import type { DetailedPeerCertificate } from 'node:tls'
import { certificateId, notAfter, notBefore } from './certificate.ts'
import { type Clock, systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { type Destination, dial } from './dial.ts'
import { fetchCaCertificates } from './enroll.ts'
import { CertvendError } from './errors.ts'
import { type Patience, within } from './patience.ts'
import { type ProxyOptions, proxyFor, withoutBrackets } from './proxy.ts'
import { parseTrustAnchors, type TrustAnchors } from './trust.ts'
import type { VendingServer } from './vending-server.ts'
import type { Endpoint } from './wire.ts'

/** A certificate, as a person compares it. */
export interface ShownCertificate {
  /** One line. */
  readonly subject: string
  readonly issuer: string
  /** SHA-256 of the DER, lower-case hex. */
  readonly sha256: string
  readonly notBefore: Date
  readonly notAfter: Date
  readonly isCa: boolean
  readonly pem: string
}

/** How far a road led, and what failed. */
export interface Trace {
  readonly host: string
  readonly port: number
  /** Host and port of the proxy that leads there, if one does. */
  readonly proxy?: string
  /** What was looked up: the host, or the proxy's; and what was found. */
  readonly name: {
    readonly host: string
    readonly addresses: readonly string[]
    /** Node's code when nothing was: `ENOTFOUND`, `EAI_AGAIN`. */
    readonly code?: string
  }
  /** The last step that succeeded. */
  readonly reached: 'nothing' | 'name' | 'connected' | 'tunnel' | 'shown' | 'secured'
  /** The address that answered. */
  readonly address?: string
  /** What was shown, end entity first, whoever vouches for it. */
  readonly chain: readonly ShownCertificate[]
  /** The pin or trust anchor by which the server was verified. */
  readonly vouchedBy?: ShownCertificate
  readonly failure?: CertvendError
}

/** That, to a vending server; and what it answered. */
export interface VendingTrace extends Trace {
  /** What came back from `GET /v1/cacerts`; absent where the server was not verified. */
  readonly answer?: {
    /** The server's own clock, by its `Date` header. */
    readonly date?: Date
    /** Why it is not the answer of a vending server of our own protocol. */
    readonly failure?: CertvendError
  }
}

export interface TraceOptions extends ProxyOptions {
  readonly signal?: AbortSignal
  /** For each step that waits for somebody, in milliseconds. Default 8000. */
  readonly deadlineMs?: number
  readonly clock?: Clock
}

/** Looks at the way to the vending server, and asks what anybody may ask. */
export async function traceVendingServer(
  server: VendingServer,
  options: TraceOptions = {},
): Promise<VendingTrace> {
  const { hostname, port } = server.url
  const destination: Destination = {
    host: hostname,
    port: Number(port || 443),
    alpn: 'http/1.1',
    anchors: server.pins,
    anchorsAre: 'pin',
  }
  const trace = await traceTo(destination, options)
  if (trace.reached !== 'secured' || server.dialect.name !== 'certvend') return trace
  let date: string | undefined
  const answer = (failure?: CertvendError): VendingTrace => ({
    ...trace,
    answer: { ...dateOf(date), ...(failure ? { failure } : {}) },
  })
  try {
    const { createSend } = await import('./https.ts')
    const send = createSend(server.pins, options.clock ?? systemClock, options)
    await fetchCaCertificates(server, {
      ...options,
      deadlineMs: options.deadlineMs ?? defaultDeadlineMs,
      async send(request, limits) {
        const response = await send(request, limits)
        date = response.headers.date
        return response
      },
    })
    return answer()
  } catch (error) {
    if (!(error instanceof CertvendError)) throw error
    return answer(error)
  }
}

function dateOf(header: string | undefined): { date?: Date } {
  const ms = Date.parse(header ?? '')
  return Number.isNaN(ms) ? {} : { date: new Date(ms) }
}

/**
 * Looks at the way to the MQTT server. There is no CONNECT, so that whoever is online under this
 * name stays online.
 *
 * @param credential shown to the server, as for a session.
 */
export function traceMqttServer(
  endpoint: Endpoint,
  credential?: Pick<Credential, 'certificateChain' | 'privateKey'>,
  options: TraceOptions = {},
): Promise<Trace> {
  const { host, port, alpn, trustAnchors } = endpoint
  return traceTo(
    {
      host,
      port,
      alpn,
      anchors: parseTrustAnchors(trustAnchors),
      anchorsAre: 'trust anchor',
      ...(credential
        ? {
            identity: {
              certificateChain: credential.certificateChain,
              privateKey: credential.privateKey.toPem(),
            },
          }
        : {}),
    },
    options,
  )
}

const defaultDeadlineMs = 8000

async function traceTo(destination: Destination, options: TraceOptions): Promise<Trace> {
  const { clock = systemClock, signal, deadlineMs = defaultDeadlineMs } = options
  const host = withoutBrackets(destination.host)
  const proxy = proxyFor(destination, options)
  const name = await find(proxy?.host ?? host, { clock, signal, deadlineMs })
  const where = { host, port: destination.port, name, ...(proxy ? { proxy: proxy.place } : {}) }
  let reached: Trace['reached'] = name.addresses.length > 0 ? 'name' : 'nothing'
  let address: { address: string } | undefined
  let shown: DetailedPeerCertificate | undefined
  const seen = () => ({ ...where, reached, ...address, chain: chainOf(shown) })
  try {
    const dialed = await withDeadline({ clock, signal, deadlineMs }, (patience) =>
      dial(destination, patience, {
        ...options,
        now: clock.now(),
        onStep(step) {
          reached = step.at
          if (step.at === 'connected' && step.address) address = { address: step.address }
          if (step.at === 'shown') shown = step.certificate
        },
      }),
    )
    dialed.socket.destroy()
    reached = 'secured'
    const vouchedBy = vouching(shown, destination.anchors)
    return { ...seen(), ...(vouchedBy ? { vouchedBy } : {}) }
  } catch (failure) {
    if (!(failure instanceof CertvendError)) throw failure
    return { ...seen(), failure }
  }
}

interface Waiting {
  readonly clock: Clock
  readonly signal: AbortSignal | undefined
  readonly deadlineMs: number
}

async function withDeadline<T>(
  { clock, signal, deadlineMs }: Waiting,
  work: (patience: Patience) => Promise<T>,
): Promise<T> {
  const deadline = new AbortController()
  const settled = new AbortController()
  clock.wait(deadlineMs, settled.signal).then(
    () => deadline.abort(new Error('the time is up')),
    () => {},
  )
  try {
    return await work({ signal, deadline: deadline.signal, deadlineMs })
  } finally {
    settled.abort()
  }
}

/** A resolver that hears nothing holds a thread, but not us. */
async function find(host: string, waiting: Waiting): Promise<Trace['name']> {
  try {
    const found = await withDeadline(waiting, (patience) =>
      within(patience, (either) =>
        Promise.race([lookup(host, { all: true }), whenAborted(either)]),
      ),
    )
    return { host, addresses: found.map(({ address }) => address) }
  } catch (error) {
    waiting.signal?.throwIfAborted()
    const { code = 'EAI_AGAIN' } = error as NodeJS.ErrnoException
    return { host, addresses: [], code }
  }
}

const whenAborted = (signal: AbortSignal): Promise<never> =>
  new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(signal.reason), { once: true })
  })

/** As it was sent, not as it was verified. */
function chainOf(shown: DetailedPeerCertificate | undefined): ShownCertificate[] {
  const chain: ShownCertificate[] = []
  const seen = new Set<string>()
  for (let at = shown; at?.raw && !seen.has(at.fingerprint256); at = at.issuerCertificate) {
    seen.add(at.fingerprint256)
    chain.push(describeCertificate(new X509Certificate(at.raw)))
  }
  return chain
}

/** The anchor that is in the chain, or issued one of it. */
function vouching(
  shown: DetailedPeerCertificate | undefined,
  { certificates }: TrustAnchors,
): ShownCertificate | undefined {
  const seen = new Set<string>()
  for (let at = shown; at?.raw && !seen.has(at.fingerprint256); at = at.issuerCertificate) {
    seen.add(at.fingerprint256)
    const certificate = new X509Certificate(at.raw)
    const anchor = certificates.find(
      (one) =>
        one.raw.equals(certificate.raw) ||
        (certificate.checkIssued(one) && certificate.verify(one.publicKey)),
    )
    if (anchor) return describeCertificate(anchor)
  }
  return undefined
}

const oneLine = (name: string | undefined): string =>
  (name ?? '')
    .replace(/\s*\n\s*/g, ', ')
    .replace(/[^\x20-\x7e]+/g, ' ')
    .slice(0, 120)

/** A certificate in the few words that people compare. */
export const describeCertificate = (certificate: X509Certificate): ShownCertificate => ({
  subject: oneLine(certificate.subject),
  issuer: oneLine(certificate.issuer),
  sha256: certificateId(certificate),
  notBefore: notBefore(certificate),
  notAfter: notAfter(certificate),
  isCa: certificate.ca,
  pem: certificate.toString(),
})
