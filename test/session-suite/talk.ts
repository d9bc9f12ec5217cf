/** The server's half of MQTT 3.1.1 and 5, as far as a broker that misbehaves needs it. */
import type { Socket } from 'node:net'
import { onPackets, type Talk } from '../hostile-server.ts'
import type { Way } from './ways.ts'

type Protocol = Way['protocol']

/** Types of packets from a client, the first byte without its flags. */
export const packet = {
  connect: 1,
  publish: 3,
  puback: 4,
  subscribe: 8,
  unsubscribe: 10,
  ping: 12,
  disconnect: 14,
}
export const typeOf = (bytes: Buffer): number => (bytes[0] ?? 0) >> 4

/** CONNACK; under MQTT 5 with properties, whole as on the wire. */
export const connack = (
  protocol: Protocol,
  code = 0,
  properties: readonly number[] = [],
): Buffer =>
  protocol === '5'
    ? Buffer.from([0x20, 3 + properties.length, 0, code, properties.length, ...properties])
    : Buffer.from([0x20, 2, 0, code])

/** The packet identifier of a PUBLISH (QoS 1), SUBSCRIBE or UNSUBSCRIBE. */
function identifier(bytes: Buffer): [number, number] {
  let body = 1
  while ((bytes[body++] ?? 0) >= 0x80);
  const at = typeOf(bytes) === packet.publish ? body + 2 + bytes.readUInt16BE(body) : body
  return [bytes[at] ?? 0, bytes[at + 1] ?? 0]
}

export const suback = (protocol: Protocol, subscribe: Buffer, code = 1): Buffer =>
  protocol === '5'
    ? Buffer.from([0x90, 4, ...identifier(subscribe), 0, code])
    : Buffer.from([0x90, 3, ...identifier(subscribe), code])

const unsuback = (protocol: Protocol, unsubscribe: Buffer): Buffer =>
  protocol === '5'
    ? Buffer.from([0xb0, 4, ...identifier(unsubscribe), 0, 0])
    : Buffer.from([0xb0, 2, ...identifier(unsubscribe)])

export const puback = (publish: Buffer): Buffer => Buffer.from([0x40, 2, ...identifier(publish)])

/** A PUBLISH; `id` counts with QoS 1 only. */
export function publish(
  protocol: Protocol,
  topic: string,
  payload: Buffer,
  id: number,
  qos: 0 | 1 = 1,
): Buffer {
  const body = Buffer.concat([
    Buffer.from([topic.length >> 8, topic.length & 0xff]),
    Buffer.from(topic),
    Buffer.from(qos === 1 ? [id >> 8, id & 0xff] : []),
    Buffer.from(protocol === '5' ? [0] : []),
    payload,
  ])
  const length: number[] = []
  for (let left = body.length; left > 0 || length.length === 0; left >>= 7)
    length.push((left & 0x7f) | (left > 0x7f ? 0x80 : 0))
  return Buffer.concat([Buffer.from([0x30 | (qos << 1), ...length]), body])
}

/** DISCONNECT with a reason, which only MQTT 5 has. */
export const disconnect = (reason: number): Buffer => Buffer.from([0xe0, 2, reason, 0])

export interface Manners {
  /** Called with each packet before it is answered; true leaves the answer to it. */
  readonly meanwhile?: (bytes: Buffer, socket: Socket) => boolean | undefined
}

/** Speaks as a polite broker, save for what `meanwhile` does. */
export const polite =
  (protocol: Protocol, { meanwhile = () => false }: Manners = {}): Talk =>
  (socket) =>
    onPackets(socket, (bytes) => {
      if (meanwhile(bytes, socket)) return
      const type = typeOf(bytes)
      if (type === packet.connect) socket.write(connack(protocol))
      if (type === packet.subscribe) socket.write(suback(protocol, bytes))
      if (type === packet.unsubscribe) socket.write(unsuback(protocol, bytes))
      if (type === packet.publish && (bytes[0] ?? 0) & 0x06) socket.write(puback(bytes))
      if (type === packet.ping) socket.write(Buffer.from([0xd0, 0]))
    })
