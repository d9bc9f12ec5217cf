/**
 * The one way out of this device, for both halves: TCP, and TLS inside it.
 *
 * What comes back is connected and vouched for; everything that can stand in the way is thrown as
 * a typed error. No protocol above TLS is known here.
 */
import { once } from 'node:events'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { CertvendError } from './errors.ts'
import { type Patience, within } from './patience.ts'
import { socketFailure } from './refusal.ts'
import { type Identity, type TrustAnchors, tlsOptions } from './trust.ts'

export interface Destination {
  /** Host name or address, an IPv6 address with or without brackets. */
  readonly host: string
  readonly port: number
  /** ALPN protocol to ask for. */
  readonly alpn?: string | undefined
  /** Who may vouch for it. */
  readonly anchors: TrustAnchors
  /** What `anchors` are called in messages. */
  readonly anchorsAre: 'pin' | 'trust anchor'
  /** What the device shows of itself, for mutual TLS. */
  readonly identity?: Identity
}

/** A connection that a server has been vouched for on. */
export interface Dialed {
  readonly socket: TLSSocket
  /** What it leads to, for messages. */
  readonly place: string
}

/**
 * How long one address is tried before the next, in milliseconds. Node abandons an attempt where
 * RFC 8305 lets it run on beside the next, so its default of 250 ms never gets through a slow link.
 */
const attemptMs = 2000

/**
 * Connects, attempting once; each address of the host is tried, of both families.
 *
 * @throws {CertvendError} `ERR_NETWORK`, `ERR_TIMEOUT`, `ERR_CLOCK`, `ERR_SERVER_UNTRUSTED`,
 *   `ERR_CREDENTIAL_REFUSED`; or the signal's reason
 */
export async function dial(
  destination: Destination,
  patience: Patience,
  now: Date,
): Promise<Dialed> {
  const { host, port, alpn, anchors, anchorsAre, identity } = destination
  const place = `${host.includes(':') && !host.startsWith('[') ? `[${host}]` : host}:${port}`
  const options = tlsOptions(anchors, host, identity)
  let tcp: Socket | undefined
  try {
    return await within(patience, async (either) => {
      tcp = await openTcp(host, port, either)
      const socket = connectTls({
        ...options,
        socket: tcp,
        ...(alpn === undefined ? {} : { ALPNProtocols: [alpn] }),
      })
      await once(socket, 'secureConnect', { signal: either })
      // Whoever takes it over adds its own; until then an error must not be an uncaught one.
      return { socket: socket.on('error', () => {}), place }
    })
  } catch (error) {
    tcp?.destroy()
    patience.signal?.throwIfAborted()
    if (patience.deadline.aborted)
      throw new CertvendError(
        'ERR_TIMEOUT',
        `${place} did not answer within ${patience.deadlineMs / 1000} s`,
      )
    throw socketFailure(error as Error, { place, secured: false, now, anchorsAre })
  }
}

async function openTcp(host: string, port: number, signal: AbortSignal): Promise<Socket> {
  const socket = connectTcp({
    host: host.replace(/^\[|\]$/g, ''),
    port,
    autoSelectFamily: true,
    autoSelectFamilyAttemptTimeout: attemptMs,
    noDelay: true,
  })
  try {
    await once(socket, 'connect', { signal })
    return socket
  } catch (error) {
    socket.destroy()
    throw error
  }
}
