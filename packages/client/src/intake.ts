/**
 * How much of what an MQTT server sends is held at once. The protocol lets one packet have 256 MiB
 * (MQTT 3.1.1 section 2.2.3) and 65 535 messages of QoS 2 wait for their release, each of which ends a
 * small device; another client of the same server may be who sends them.
 */
import type { Socket } from 'node:net'

/** Bytes, for one packet and for all messages that wait for their release. AWS IoT Core sends 128 KiB. */
export const mostHeld: number = 16 * 1024 * 1024

/** As MQTT.js tells of it. */
interface Packet {
  readonly cmd: string
  readonly qos?: number | undefined
  readonly messageId?: number | undefined
  readonly payload?: string | Buffer | undefined
}

/**
 * Watches what comes in.
 *
 * @param refuse told that the server sends more than {@link mostHeld}; must end the connection.
 * @returns to be told of each packet that was read.
 */
export function limitIntake(
  socket: Socket,
  refuse: (what: string) => void,
): (packet: Packet) => void {
  onPacketSizes(socket, (size) => {
    if (size > mostHeld) refuse(`a packet of ${size} bytes`)
  })
  const waiting = new Map<number | undefined, number>()
  let held = 0
  return ({ cmd, qos, messageId, payload = '' }) => {
    const arrives = cmd === 'publish' && qos === 2
    if (!arrives && cmd !== 'pubrel') return
    held -= waiting.get(messageId) ?? 0
    waiting.delete(messageId)
    if (!arrives) return
    waiting.set(messageId, payload.length)
    held += payload.length
    if (held > mostHeld) refuse(`${held} bytes of messages and releases none`)
  }
}

/** Tells of each packet's remaining length (MQTT 3.1.1 section 2.2.3) as soon as it is there. */
function onPacketSizes(socket: Socket, tell: (size: number) => void): void {
  let body = 0
  let size = 0
  /** Digits of the length so far; before the packet's type, none. */
  let digits: number | undefined
  socket.on('data', (bytes: Buffer) => {
    for (let at = 0; at < bytes.length; ) {
      if (body > 0) {
        const here = Math.min(body, bytes.length - at)
        body -= here
        at += here
        continue
      }
      const byte = bytes[at++] as number
      if (digits === undefined) {
        digits = 0
        size = 0
        continue
      }
      size += (byte & 0x7f) * 128 ** digits++
      if (byte > 0x7f && digits < 4) continue
      tell(size)
      body = size
      digits = undefined
    }
  })
}
