/** The connection that the loop keeps in the background: begun, left in order, and what a successor's proof came to. */
import { CertvendError, type Clock, type CredentialStore, type Transport } from '@certvend/client'
import type { MqttSettings } from './config.ts'
import type { Unproven } from './lifecycle.ts'
import type { Log } from './log.ts'
import { keepOnline } from './online.ts'
import { waitingSuccessor } from './succession.ts'
import { destroyOwnCopy } from './token.ts'

export interface ConnectionOptions {
  readonly signal: AbortSignal
  readonly log: Log
  readonly clock: Clock
  readonly random: () => number
  readonly mqtt?: MqttSettings
  readonly once?: boolean
  /** Whose turn it is at first, where a successor waits for its proof. */
  readonly first: 'successor' | 'in-use'
  /** What the connection before this one knew of the successor that waits. */
  readonly before?: UnprovenSuccessor | undefined
  /** Told when it is over and {@link Connection.leave} was not called. */
  readonly onEnded: () => void
  readonly transport?: Transport
}

export interface UnprovenSuccessor extends Unproven {
  readonly generation: number | undefined
}

export interface Connection {
  /** What the first turn of a successor came to: nothing when it has proven itself. */
  readonly verdict: Promise<CertvendError | undefined>
  /** Present while a successor failed its last proof and the credential in use does open sessions. */
  unproven(): UnprovenSuccessor | undefined
  /** Takes leave, `forgotten` for good; resolves soon, however slow the network. */
  leave(how?: 'forgotten'): Promise<void>
  /** Settles as the connection does, or resolves when that takes too long. Rejects only over a defect. */
  ended(): Promise<void>
}

/** A session that cannot be closed in order is left behind after this, in milliseconds. */
const leaveWithinMs = 1200

/** Keeps a connection until told to leave. @param store must hold a credential. */
export function keepConnection(store: CredentialStore, options: ConnectionOptions): Connection {
  const { signal, log, clock, random, first, onEnded } = options
  const left = new AbortController()
  let isForgotten = false
  let unproven: UnprovenSuccessor | undefined
  let online = false
  let tell: (failure: CertvendError | undefined) => void = () => {}
  const verdict = new Promise<CertvendError | undefined>((resolve) => {
    tell = resolve
  })
  const done = keepOnline(store, {
    signal: AbortSignal.any([signal, left.signal]),
    log,
    clock,
    random,
    mqtt: options.mqtt ?? {},
    once: options.once ?? false,
    first,
    onVerdict(failure) {
      const generation = waitingSuccessor(store)?.generation
      const earlier = unproven ?? options.before
      const times = earlier?.generation === generation ? (earlier?.times ?? 0) + 1 : 1
      unproven = failure && { generation, at: clock.now(), times }
      tell(failure)
    },
    onProven() {
      online = true
      destroyOwnCopy(store.directory, log)
    },
    isForgotten: () => isForgotten,
    ...(options.transport ? { transport: options.transport } : {}),
  })
  const over = (): void => {
    tell(new CertvendError('ERR_SESSION_LOST', 'the connection ended before the proof'))
    if (!left.signal.aborted) onEnded()
  }
  // However it ends, so does the loop; what it failed with is thrown by `ended`.
  done.then(over, over)
  return {
    verdict,
    unproven: () => (online ? unproven : undefined),
    async leave(how) {
      isForgotten = how === 'forgotten'
      left.abort(new Error('leaving'))
      await within(leaveWithinMs, clock, done)
    },
    ended: () => within(leaveWithinMs, clock, done),
  }
}

/** Settles as `promise` does, or resolves when it takes longer than `ms`. */
async function within(ms: number, clock: Clock, promise: Promise<void>): Promise<void> {
  const settled = new AbortController()
  const limit = clock.wait(ms, settled.signal).catch(() => {})
  try {
    await Promise.race([promise, limit])
  } finally {
    settled.abort()
  }
}
