/**
 * The one way out of this device, for both halves: TCP or a proxy's tunnel, and TLS inside it.
 *
 * What comes back is connected and vouched for; everything that can stand in the way is thrown as
 * a typed error. No protocol above TLS is known here.
 */
import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, type DetailedPeerCertificate, type TLSSocket } from 'node:tls'
import { CertvendError } from './errors.ts'
import { explain } from './in-between.ts'
import { type Patience, within } from './patience.ts'
import { authority, type HttpProxy, type ProxyOptions, proxyFor, withoutBrackets } from './proxy.ts'
import { socketFailure } from './refusal.ts'
import { type Identity, proxyTlsOptions, type TrustAnchors, tlsOptions } from './trust.ts'

export interface Place {
  /** Host name or address, an IPv6 address with or without brackets. */
  readonly host: string
  readonly port: number
}

export interface Destination extends Place {
  /** ALPN protocol to ask for. */
  readonly alpn?: string | undefined
  /** Who may vouch for it. */
  readonly anchors: TrustAnchors
  /** What `anchors` are called in messages. */
  readonly anchorsAre: 'pin' | 'trust anchor'
  /** What the device shows of itself, for mutual TLS. */
  readonly identity?: Identity
}

/** A connection; over TLS, one that a server has been vouched for on. */
export interface Dialed<S extends Socket = TLSSocket> {
  readonly socket: S
  /** What it leads to, for messages. */
  readonly place: string
  /** The first error that the socket had since: a TLS alert, often, and then a mere close. */
  error(): Error | undefined
}

/** How far a connection has come. */
export type DialStep =
  /** TCP, to the host or its proxy. */
  | { readonly at: 'connected'; readonly address: string | undefined }
  | { readonly at: 'tunnel' }
  /** A certificate was shown; nobody has judged it yet. */
  | { readonly at: 'shown'; readonly certificate: DetailedPeerCertificate }

export interface DialOptions extends ProxyOptions {
  readonly now: Date
  /** For whoever explains; whether the connection is trusted does not depend on it. */
  readonly onStep?: (step: DialStep) => void
}

/**
 * How long one address is tried before the next, in milliseconds. Node abandons an attempt where
 * RFC 8305 lets it run on beside the next: by its default of 250 ms every address but the last is
 * lost over a slow link, and the last is of the family that was not preferred.
 */
const attemptMs = 2000

/**
 * Connects, attempting once; each address of the host is tried, of both families.
 *
 * @throws {CertvendError} `ERR_NETWORK`, `ERR_PROXY`, `ERR_TIMEOUT`, `ERR_CLOCK`,
 *   `ERR_SERVER_UNTRUSTED`, `ERR_CREDENTIAL_REFUSED`; or the signal's reason
 * @throws TypeError when the proxy cannot be used as it is written
 */
export async function dial(
  destination: Destination,
  patience: Patience,
  options: DialOptions,
): Promise<Dialed<TLSSocket>> {
  const { host, alpn, anchors, anchorsAre, identity } = destination
  const tls = tlsOptions(anchors, host, identity)
  return reach(destination, patience, { ...options, anchorsAre }, async (tcp, either, show) => {
    const socket = connectTls({
      ...tls,
      socket: tcp,
      ...(alpn === undefined ? {} : { ALPNProtocols: [alpn] }),
    })
    // Before Node judges it: a refused socket no longer knows its peer. Not by
    // getPeerX509Certificate, which takes the certificate away from the judge.
    socket.prependOnceListener('secure', () => {
      const { raw } = socket.getPeerCertificate()
      show(raw)
      if (raw) options.onStep?.({ at: 'shown', certificate: socket.getPeerCertificate(true) })
    })
    await once(socket, 'secureConnect', { signal: either })
    return socket
  })
}

/**
 * The same without TLS: whoever is on the way reads and forges everything, and nobody is vouched for.
 * Only for the one old dialect that knows nothing else.
 */
export const dialPlain = (
  place: Place,
  patience: Patience,
  options: DialOptions,
): Promise<Dialed<Socket>> => reach(place, patience, options, async (tcp) => tcp)

async function reach<S extends Socket>(
  destination: Place,
  patience: Patience,
  options: DialOptions & { readonly anchorsAre?: Destination['anchorsAre'] },
  secure: (tcp: Socket, either: AbortSignal, show: (der: Buffer) => void) => Promise<S>,
): Promise<Dialed<S>> {
  const { host, port } = destination
  const { now, anchorsAre, onStep } = options
  const proxy = proxyFor(destination, options)
  const place = `${authority(host, port)}${proxy ? ` (through proxy ${proxy.place})` : ''}`
  const opened: Socket[] = []
  let waitsFor = proxy ? `proxy ${proxy.place}` : place
  let shown: Buffer | undefined
  try {
    return await within(patience, async (either) => {
      const tcp = proxy
        ? await throughProxy(proxy, destination, options, { opened, signal: either, onStep })
        : await openTcp({ host, port }, { opened, signal: either, onStep })
      waitsFor = place
      const socket = await secure(tcp, either, (der) => {
        shown = der
      })
      let first: Error | undefined
      // Whoever takes it over listens too; until then an error must not be an uncaught one.
      socket.on('error', (error) => {
        first ??= error
      })
      return { socket, place, error: () => first }
    })
  } catch (error) {
    for (const one of opened) one.destroy()
    patience.signal?.throwIfAborted()
    const failure = patience.deadline.aborted
      ? new CertvendError(
          'ERR_TIMEOUT',
          `${waitsFor} did not answer within ${patience.deadlineMs / 1000} s`,
        )
      : socketFailure(error as Error, {
          place,
          secured: false,
          now,
          ...(anchorsAre ? { anchorsAre } : {}),
        })
    throw explain(failure, { host: withoutBrackets(host), port, proxy: proxy?.place, shown })
  }
}

interface Attempt {
  /** Every socket that was opened, for whoever cleans up. */
  readonly opened: Socket[]
  readonly signal: AbortSignal
  readonly onStep: DialOptions['onStep']
}

async function openTcp(
  { host, port }: { readonly host: string; readonly port: number },
  { opened, signal, onStep }: Attempt,
): Promise<Socket> {
  const socket = connectTcp({
    host: withoutBrackets(host),
    port,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: attemptMs,
    noDelay: true,
  })
  opened.push(socket)
  await once(socket, 'connect', { signal })
  onStep?.({ at: 'connected', address: socket.remoteAddress })
  return socket.on('error', () => {})
}

/** A connection to `to` that the proxy has opened; its own TLS protects the proxy hop only. */
async function throughProxy(
  proxy: HttpProxy,
  to: Place,
  { now, proxyAnchors }: DialOptions,
  attempt: Attempt,
): Promise<Socket> {
  const { signal, opened } = attempt
  let hop: Socket
  try {
    hop = await openTcp(proxy, attempt)
    if (proxy.secure) {
      hop = connectTls({ ...proxyTlsOptions(proxy.host, proxyAnchors), socket: hop })
      opened.push(hop)
      await once(hop, 'secureConnect', { signal })
      hop.on('error', () => {})
    }
  } catch (error) {
    signal.throwIfAborted()
    throw proxyFailure(error as Error, proxy, now)
  }
  const { openTunnel } = await import('./tunnel.ts')
  await openTunnel(hop, proxy, to, signal)
  attempt.onStep?.({ at: 'tunnel' })
  return hop
}

/** A failure before CONNECT was asked. */
function proxyFailure(error: Error, { place }: HttpProxy, now: Date): CertvendError {
  const failure = socketFailure(error, { place: `proxy ${place}`, secured: false, now })
  if (failure.code === 'ERR_CLOCK') return failure
  return new CertvendError('ERR_PROXY', failure.message, {
    cause: failure.cause,
    ...(failure.code === 'ERR_SERVER_UNTRUSTED'
      ? {
          remedy: 'operator',
          hint: "give the CA of the proxy's certificate as proxyAnchors or in NODE_EXTRA_CA_CERTS, and its name as the certificate has it",
        }
      : {}),
  })
}
