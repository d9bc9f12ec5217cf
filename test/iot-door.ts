/**
 * A door that behaves like IoT Core's, in front of nothing (it acknowledges by itself) or of a real
 * broker (it hands admitted connections on, byte by byte).
 *
 * Any client certificate passes TLS. On CONNECT, not before, the certificate is judged: unknown and
 * signed by a registered CA, it is registered as PENDING_ACTIVATION, which is an event, and closed
 * without CONNACK; still pending, that happens again; INACTIVE, or without a policy in force, it is
 * closed as well. Whoever subscribes to the events is the activator.
 */
import { X509Certificate } from 'node:crypto'
import type { Socket } from 'node:net'
import tls, { type TLSSocket } from 'node:tls'
import type { Clock } from '@certvend/client'
import { connack, listen, onPackets, suback } from './hostile-server.ts'
import { type Certified, certificateIdOf } from './pki.ts'

export interface Registered {
  status: 'PENDING_ACTIVATION' | 'ACTIVE' | 'INACTIVE'
  /** From when on its policy is seen; a policy just attached is not seen everywhere at once. */
  policyFrom: Date | undefined
}

/** What IoT Core publishes when an unknown or pending certificate knocks. */
export interface Registration {
  readonly certificateId: string
  readonly caCertificateId: string
  readonly certificateStatus: 'PENDING_ACTIVATION'
}

export interface Door {
  readonly port: number
  /** By certificate id. */
  readonly certificates: Map<string, Registered>
  /** Every CONNECT: what became of it, how many certificates were shown, and when. */
  readonly knocks: readonly {
    readonly outcome: 'admitted' | 'closed'
    readonly shown: number
    readonly at: Date
  }[]
  /** Every PUBLISH let in by a door in front of nothing: topic and payload. */
  readonly published: readonly string[]
  /** Lets in a certificate that nobody registered by knocking. */
  admit(certificate: string): void
  /** Cuts every connection that was let in, without a word. */
  dropConnections(): void
  close(): Promise<void>
}

export interface DoorOptions {
  readonly server: Certified
  /** With auto-registration on. */
  readonly registeredCa: Certified
  readonly onRegistered?: (registration: Registration, door: Door) => void
  readonly clock: Clock
  /** A real broker behind the door, which trusts the door's own certificate. */
  readonly behind?: {
    readonly port: number
    readonly anchor: Certified
    readonly identity: Certified
  }
}

export async function openDoor(options: DoorOptions): Promise<Door> {
  const { server, registeredCa, clock, onRegistered = () => {}, behind } = options
  const certificates: Door['certificates'] = new Map()
  const knocks: Door['knocks'][number][] = []
  const published: string[] = []
  const admitted = new Set<Socket>()
  const issuer = new X509Certificate(registeredCa.certificate)

  function admits(shown: X509Certificate | undefined): boolean {
    if (!shown) return false
    const certificateId = shown.fingerprint256.replaceAll(':', '').toLowerCase()
    const known = certificates.get(certificateId)
    const ours = shown.checkIssued(issuer) && shown.verify(issuer.publicKey)
    if ((!known && ours) || known?.status === 'PENDING_ACTIVATION') {
      if (!known)
        certificates.set(certificateId, { status: 'PENDING_ACTIVATION', policyFrom: undefined })
      const caCertificateId = certificateIdOf(registeredCa.certificate)
      onRegistered(
        { certificateId, caCertificateId, certificateStatus: 'PENDING_ACTIVATION' },
        door,
      )
      return false
    }
    return (
      known?.status === 'ACTIVE' &&
      known.policyFrom !== undefined &&
      known.policyFrom <= clock.now()
    )
  }

  const talk = (socket: Socket): void => {
    let inside: ((packet: Buffer) => void) | undefined
    onPackets(socket, (packet) => {
      if (inside) return inside(packet)
      if (packet[0] !== 0x10) return void socket.destroy()
      const shown = chainOf(socket as TLSSocket)
      const outcome = admits(shown[0]) ? 'admitted' : 'closed'
      knocks.push({ outcome, shown: shown.length, at: clock.now() })
      if (outcome === 'closed') return void socket.destroy()
      admitted.add(socket)
      socket.once('close', () => admitted.delete(socket))
      inside = behind ? handOn(socket, behind) : acknowledge(socket, published)
      inside(packet)
    })
  }
  const peer = await listen(server, [], talk, {
    tls: { requestCert: true, rejectUnauthorized: false }, // judged above, by the CA alone
  })
  const door: Door = {
    port: peer.port,
    certificates,
    knocks,
    published,
    admit: (certificate) =>
      void certificates.set(certificateIdOf(certificate), {
        status: 'ACTIVE',
        policyFrom: clock.now(),
      }),
    dropConnections() {
      for (const socket of admitted) socket.destroy()
    },
    close: peer.close,
  }
  return door
}

/** The certificates that the client sent, its own first. */
function chainOf(socket: TLSSocket): X509Certificate[] {
  const chain: X509Certificate[] = []
  let at = socket.getPeerCertificate(true)
  while (at?.raw && !chain.some(({ raw }) => raw.equals(at.raw))) {
    chain.push(new X509Certificate(at.raw))
    at = at.issuerCertificate
  }
  return chain
}

/** Speaks for the broker: CONNACK, SUBACK and PUBACK, in packets of under 128 bytes. */
function acknowledge(socket: Socket, published: string[]): (packet: Buffer) => void {
  return (packet) => {
    const [first = 0] = packet
    if (first === 0x10) socket.write(connack())
    if (first === 0x82) socket.write(suback(packet))
    if (first >> 4 !== 3) return
    const topicEnd = 4 + packet.readUInt16BE(2)
    const acknowledged = (first & 6) > 0
    published.push(
      `${packet.subarray(4, topicEnd)} ${packet.subarray(topicEnd + (acknowledged ? 2 : 0))}`,
    )
    if (acknowledged)
      socket.write(Buffer.from([0x40, 2, ...packet.subarray(topicEnd, topicEnd + 2)]))
  }
}

/** Hands every packet on to the broker behind, whose answers go straight back. */
function handOn(
  socket: Socket,
  { port, anchor, identity }: NonNullable<DoorOptions['behind']>,
): (packet: Buffer) => void {
  const further = tls.connect({
    host: '127.0.0.1',
    port,
    servername: 'localhost',
    ca: anchor.certificate,
    cert: identity.certificate,
    key: identity.privateKey,
  })
  further.on('error', () => socket.destroy()).on('close', () => socket.destroy())
  socket.on('close', () => further.destroy())
  further.pipe(socket)
  return (packet) => void further.write(packet)
}
