/**
 * An MQTT 3.1.1 broker that behaves like AWS IoT Core at the door. For the lab, not for production:
 * any session may publish and subscribe to anything.
 *
 * Like IoT Core it accepts every client certificate in TLS and closes before CONNACK for whoever may
 * not enter: unknown, expired, INACTIVE or REVOKED certificate, disabled device, or a client id that
 * is not the thing name. One session per client id: a newcomer closes the one before.
 */
import type { AddressInfo, Socket } from 'node:net'
import { createServer, type TLSSocket } from 'node:tls'
import { Aedes, type Client } from 'aedes'
import { type Clock, second } from './clock.ts'
import { certificateId } from './issuer/local.ts'
import { isInForce, type Registry } from './registry/registry.ts'
import { serverTlsOptions } from './tls.ts'

/** A PUBLISH as it came in; counted here, because a broker does not hand the DUP flag on. */
export interface ReceivedMessage {
  readonly clientId: string
  readonly topic: string
  readonly payload: Buffer
  readonly qos: 0 | 1 | 2
  readonly retain: boolean
  readonly dup: boolean
  /** Absent for QoS 0. */
  readonly messageId?: number
}

/** Why the door stayed shut, for tests and people; the caller only sees the connection close. */
export interface DoorRefusal {
  readonly clientId: string
  readonly reason:
    | 'no-certificate'
    | 'untrusted-certificate'
    | 'unknown-certificate'
    | 'certificate-not-active'
    | 'device-disabled'
    | 'client-id-is-not-thing-name'
    | 'registry-failed'
}

export interface BrokerOptions {
  readonly registry: Registry
  readonly clock: Clock
  /** The broker's own identity, PEM. */
  readonly tls: { readonly cert: string; readonly key: string }
  /** The CAs that issue device certificates, PEM. Roots only: a Node TLS server takes no others. */
  readonly deviceCa: readonly string[]
  readonly address?: string
  /** 0 takes a free one. */
  readonly port: number
}

export interface Broker {
  readonly port: number
  /** Every PUBLISH from a client, oldest first. */
  readonly received: readonly ReceivedMessage[]
  readonly refusals: readonly DoorRefusal[]
  /** Client ids that have a session now. */
  sessions(): readonly string[]
  /** How many sessions were ever opened. */
  readonly opened: number
  /** Cuts every connection without a word, as a broker's outage would. */
  dropConnections(): void
  close(): Promise<void>
}

/** Opens the broker. Rejects with the socket's error, such as `EADDRINUSE`. */
export async function openBroker(options: BrokerOptions): Promise<Broker> {
  const { registry, clock } = options
  const received: ReceivedMessage[] = []
  const refusals: DoorRefusal[] = []
  const sessions = new Map<string, Client>()
  const sockets = new Set<Socket>()
  let opened = 0

  /** Why this client may not enter, or the certificate it entered with. */
  async function judge(socket: TLSSocket, clientId: string) {
    const peer = socket.getPeerX509Certificate()
    if (!peer) return 'no-certificate'
    if (!socket.authorized) return 'untrusted-certificate'
    const certificate = await registry.findCertificate(certificateId(peer.raw))
    if (!certificate) return 'unknown-certificate'
    if (!isInForce(certificate, clock.now())) return 'certificate-not-active'
    const device = await registry.find(certificate.deviceSerial)
    if (!device || device.disabled) return 'device-disabled'
    if (clientId !== device.thingName) return 'client-id-is-not-thing-name'
    return certificate
  }

  /**
   * Cuts the sessions that could not be opened again, as IoT Core does within minutes: the certificate
   * is no longer ACTIVE, or the device is disabled or gone. One that has expired ends none.
   */
  async function recheck(): Promise<void> {
    for (const client of sessions.values()) {
      const socket = client.conn as TLSSocket
      const peer = socket.getPeerX509Certificate()
      if (!peer || socket.destroyed) continue
      const certificate = await registry.findCertificate(certificateId(peer.raw))
      const device = certificate && (await registry.find(certificate.deviceSerial))
      if (certificate?.status !== 'ACTIVE' || !device || device.disabled) socket.destroy()
    }
  }
  let rechecking = Promise.resolve()
  const timer = setInterval(() => {
    rechecking = rechecking.then(recheck).catch(() => undefined) // a registry that fails ends no session
  }, second)
  timer.unref()

  const aedes = await Aedes.createBroker({
    preConnect(client, packet, admit) {
      const { clientId } = packet
      const shut = (reason: DoorRefusal['reason']) => {
        refusals.push({ clientId, reason })
        client.conn.destroy() // IoT Core sends no CONNACK either
        admit(null, false)
      }
      judge(client.conn as TLSSocket, clientId).then(
        async (judged) => {
          if (typeof judged === 'string') return shut(judged)
          await registry.confirm(judged.certificateId, clock.now())
          admit(null, true)
        },
        () => shut('registry-failed'),
      )
    },
    authorizePublish(client, packet, permit) {
      if (client)
        received.push({
          clientId: client.id,
          topic: packet.topic,
          payload: Buffer.from(packet.payload),
          qos: packet.qos,
          retain: packet.retain,
          dup: packet.dup,
          ...(packet.messageId !== undefined && { messageId: packet.messageId }),
        })
      permit(null)
    },
  })
  // Before CONNACK goes out, so that whoever has received it finds itself here.
  aedes.on('client', (client) => {
    sessions.set(client.id, client)
    opened += 1
  })
  aedes.on('clientDisconnect', (client) => {
    if (sessions.get(client.id) === client) sessions.delete(client.id)
  })

  const server = createServer(
    {
      ...serverTlsOptions(options.tls),
      ca: [...options.deviceCa],
      requestCert: true,
      // The certificate is verified either way; this says who acts on the result. With `true` Node
      // would cut the connection itself, earlier than IoT Core does and without a word in `refusals`.
      // `judge` above admits nobody whose `socket.authorized` is false.
      rejectUnauthorized: false,
    },
    (socket) => void aedes.handle(socket),
  )
  server.on('connection', (socket: Socket) => {
    socket.setNoDelay(true)
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  server.on('tlsClientError', () => undefined) // a handshake that failed is the client's affair
  await new Promise<void>((resolve, reject) => {
    const fail = (error: Error) => aedes.close(() => reject(error)) // its timers would keep us alive
    server.once('error', fail)
    server.listen(options.port, options.address, () => {
      server.off('error', fail)
      resolve()
    })
  })
  const dropConnections = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    port: (server.address() as AddressInfo).port,
    received,
    refusals,
    sessions: () => [...sessions.keys()],
    get opened() {
      return opened
    },
    dropConnections,
    async close() {
      clearInterval(timer)
      await rechecking
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      await new Promise<void>((resolve) => aedes.close(resolve))
      dropConnections()
      await closed
    },
  }
}
