/**
 * Messages handed over and not acknowledged yet, carried from one session to the next.
 *
 * A QoS 1 message leaves when the server has acknowledged it. Until then the next session of the
 * same outbox sends it again, with DUP (MQTT 3.1.1 section 3.3.1.1); the promise that its caller
 * holds is the same all the while.
 */
import type { CertvendError } from './errors.ts'

export interface Held {
  readonly topic: string
  readonly payload: string | Buffer
  readonly retain: boolean
  /** Whether it went to the network before. */
  readonly sent: boolean
  /** Resolves the caller's promise, or rejects it. */
  settle(error?: CertvendError): void
}

/** By packet identifier, 1 to 65535, oldest first. */
export type Outbox = Map<number, Held>

/** An identifier that nothing held has. */
export function freeIdentifier(outbox: Outbox): number {
  let identifier = 1
  while (outbox.has(identifier)) identifier++
  return identifier
}

/** Gives up on everything held. */
export function abandon(outbox: Outbox, error: CertvendError): void {
  for (const held of outbox.values()) held.settle(error)
  outbox.clear()
}
