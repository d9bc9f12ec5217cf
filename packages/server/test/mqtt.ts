/** MQTT 3.1.1 in a few bytes: enough to knock at a broker's door and to publish. */
import { connect, type TLSSocket } from 'node:tls'
import type { DeviceKey } from './device.ts'

export interface Knock {
  readonly host: string
  readonly port: number
  readonly anchors: readonly string[]
  readonly clientId: string
  /** What to show; nothing by default. */
  readonly credential?: { readonly key: DeviceKey; readonly chain: readonly string[] }
}

export interface Session {
  readonly socket: TLSSocket
  /** Publishes with QoS 1 and waits for PUBACK. */
  publish(topic: string, payload: string, messageId: number, dup?: boolean): Promise<void>
  /** Resolves when the broker has closed. */
  readonly closed: Promise<void>
}

const text = (value: string): Buffer => {
  const bytes = Buffer.from(value)
  return Buffer.concat([Buffer.from([bytes.length >> 8, bytes.length & 0xff]), bytes])
}
const packet = (first: number, ...parts: Buffer[]): Buffer => {
  const body = Buffer.concat(parts)
  return Buffer.concat([Buffer.from([first, body.length]), body])
}

/**
 * Knocks: TLS, then CONNECT.
 *
 * @returns the session after CONNACK, or what came before the broker closed: `''` is not a byte
 */
export function knock(door: Knock): Promise<Session | string> {
  const { credential } = door
  return new Promise((resolve, reject) => {
    const socket = connect(
      {
        host: door.host,
        port: door.port,
        servername: door.host,
        ca: [...door.anchors],
        rejectUnauthorized: true,
        ...(credential && { key: credential.key.privateKeyPem, cert: credential.chain.join('') }),
      },
      () => {
        const flags = Buffer.from([4, 0x02, 0, 30])
        socket.write(packet(0x10, text('MQTT'), flags, text(door.clientId)))
      },
    )
    let received = ''
    const acknowledged = new Map<number, () => void>()
    const closed = new Promise<void>((resolveClosed) => socket.once('close', () => resolveClosed()))
    socket.once('error', (error: NodeJS.ErrnoException) => {
      if (error.code !== 'ECONNRESET' && error.code !== 'EPIPE') reject(error)
    })
    socket.on('close', () => resolve(received))
    socket.on('data', (data: Buffer) => {
      received += data.toString('hex')
      if (data[0] === 0x20)
        resolve({
          socket,
          closed,
          publish: (topic, payload, messageId, dup = false) =>
            new Promise((done) => {
              acknowledged.set(messageId, done)
              const id = Buffer.from([messageId >> 8, messageId & 0xff])
              socket.write(packet(dup ? 0x3a : 0x32, text(topic), id, Buffer.from(payload)))
            }),
        })
      if (data[0] === 0x40) acknowledged.get(data.readUInt16BE(2))?.()
    })
  })
}
