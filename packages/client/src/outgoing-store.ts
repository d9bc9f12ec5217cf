/** An outbox in the shape in which MQTT.js keeps what it has to send again. */
import { Readable } from 'node:stream'
import type { IStore, Packet } from 'mqtt'
import type { Outbox } from './outbox.ts'

/** MQTT.js stores a packet before it sends it, and says only then which identifier it took. */
export function outgoingStore(outbox: Outbox): IStore & { lastPut(): number } {
  let lastPut = 0
  const store: IStore & { lastPut(): number } = {
    lastPut: () => lastPut,
    put(packet, done) {
      lastPut = packet.messageId ?? 0
      done()
      return store
    },
    createStream() {
      const again = [...outbox].map(([messageId, { topic, payload, retain, sent }]) => ({
        cmd: 'publish',
        messageId,
        topic,
        payload,
        retain,
        qos: 1,
        dup: sent, // MQTT 3.1.1 section 3.3.1.1; MQTT.js's own store leaves it out
      }))
      return Readable.from(again) as never
    },
    del(packet, done) {
      done(undefined, packet as Packet)
      return store
    },
    get(packet, done) {
      done(undefined, packet as Packet)
      return store
    },
    close(done) {
      done()
    },
  }
  return store
}
