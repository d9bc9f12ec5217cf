/**
 * The loop that keeps a session open, for ever.
 *
 * A fleet behind one broker must not return in one second: after an established session the first
 * attempt is spread over a quarter of a minute, and each later one over a window twice as long, up
 * to a cap. Only a connection that lasted resets it, so that neither a flapping broker nor
 * another holder of the same client id makes a storm.
 */
import { systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { CertvendError } from './errors.ts'
import { networkFingerprint } from './network.ts'
import { abandon, type Outbox } from './outbox.ts'
import { maybePending } from './refusal.ts'
import type { Backoff } from './retry.ts'
import { connect, type Session, type SessionOptions } from './session.ts'

export interface StayOptions extends Omit<SessionOptions, 'outbox'> {
  /** First window and longest wait. Default 1 s and 5 min. */
  readonly backoff?: Backoff
  /** Upper bound of the first wait after an established session, in milliseconds. Default 15 000. */
  readonly spreadMs?: number
  /** Uniform in [0, 1). Default `Math.random`. */
  readonly random?: () => number
  /** Which network this device is in, as a text; a wait ends early when it changes. Default: its addresses. */
  readonly network?: () => string
  /** Told before each wait. */
  readonly onRetry?: (retry: { error: CertvendError; waitMs: number }) => void
}

/** Where the credential comes from: read anew before each attempt. */
export type CredentialSource = { current(): Credential | undefined } | Credential

/** A connection that lasted this long, in milliseconds, proves that the door is open again. */
const lastedMs = 60_000
/** So many sessions in a row thrown out soon after they opened are a pattern. */
const shortInARow = 3
/** How often a wait looks whether the network changed, in milliseconds. */
const lookMs = 30_000
/** After a change of network the next attempt comes within this time, in milliseconds. */
const soonMs = 2000
/** IoT Core takes one connect per second and client id; whom it turned away is not to try sooner. */
const refusedMs = 1000

/**
 * Sessions one after another, for ever: yields each as it opens; the next opens by itself when it
 * ended. Leaving the loop closes the session in hand; so does the signal, which then ends the loop.
 *
 * A QoS 1 message that was not acknowledged when its session ended is sent again by the next one,
 * and its `publish` settles then; it rejects only when the loop ends first.
 *
 * Nothing is given up, whatever the error: it is told to `onRetry`, and asked again more slowly.
 *
 * @param source a store, read anew before each attempt, or one credential.
 */
export async function* stayConnected(
  source: CredentialSource,
  options: StayOptions = {},
): AsyncGenerator<Session, void, void> {
  const stop = new AbortController()
  const signal = options.signal ? AbortSignal.any([options.signal, stop.signal]) : stop.signal
  let open: Session | undefined
  let over = false
  let wake = (): void => {}
  const loop = keepConnected(source, { ...options, signal }, (session) => {
    open = session
    wake()
    void session.ended.then(() => {
      if (open === session) open = undefined // nobody took it while it lived
    })
  }).finally(() => {
    over = true
    wake()
  })
  loop.catch(() => {}) // told below, when the consumer asks
  try {
    while (!over) {
      if (open) {
        const session: Session = open
        open = undefined
        yield session
      } else
        await new Promise<void>((resolve) => {
          wake = resolve
        })
    }
    await loop
  } finally {
    stop.abort()
    await loop
  }
}

async function keepConnected(
  source: CredentialSource,
  options: StayOptions & { signal: AbortSignal },
  onOpen: (session: Session) => void,
): Promise<void> {
  const { clock = systemClock, random = Math.random, signal, spreadMs = 15_000 } = options
  const { network = networkFingerprint } = options
  const backoff = options.backoff ?? { baseMs: 1000, capMs: 5 * 60_000 }
  const outbox: Outbox = new Map()
  const wait = windows(backoff, random)
  let short = 0
  let established = false
  /** The certificate that was shown last: when it was first refused, if it never opened a session. */
  let shown: { certificateId: string; refusedSince?: Date } | undefined
  try {
    while (!signal.aborted) {
      const credential = credentialOf(source)
      let failure: CertvendError
      try {
        const session = await connect(credential, { ...options, outbox })
        const opened = clock.now().getTime()
        established = true
        shown = { certificateId: credential.certificateId }
        onOpen(session)
        const end = await session.ended
        if (end.reason === 'closed' && signal.aborted) return
        const lasted = clock.now().getTime() - opened >= lastedMs
        if (lasted) wait.reset()
        short = lasted ? 0 : short + 1
        failure =
          end.reason === 'closed'
            ? new CertvendError('ERR_SESSION_LOST', 'the session was closed')
            : short >= shortInARow
              ? anotherHolder(credential, end.error)
              : end.error
      } catch (error) {
        if (signal.aborted) return
        if (!(error instanceof CertvendError)) throw error
        const now = clock.now()
        if (
          error.code === 'ERR_SESSION_REFUSED' &&
          shown?.certificateId !== credential.certificateId
        )
          shown = { certificateId: credential.certificateId, refusedSince: now }
        failure = maybePending(error, credential, { now, refusedSince: shown?.refusedSince })
      }
      const leastMs = failure.code === 'ERR_SESSION_REFUSED' ? refusedMs : 0
      const waitMs = leastMs + wait.next(established ? spreadMs : backoff.baseMs)
      options.onRetry?.({ error: failure, waitMs })
      await waitUnlessMoved(waitMs, { clock, random, signal, network })
    }
  } catch (error) {
    if (!signal.aborted) throw error
  } finally {
    abandon(
      outbox,
      new CertvendError('ERR_SESSION_LOST', 'the loop ended before the server acknowledged'),
    )
  }
}

/**
 * Waits that follow each other window by window: each is what was left of the last window, plus a
 * draw from the next one, which is twice as long. Windows never overlap, so however early a device
 * failed it does not meet, in the second in which the broker returns, those that had yet to try
 * (docs/herd.svg). Each wait is at most the cap.
 */
function windows({ capMs }: Backoff, random: () => number) {
  let length = 0
  let drawn = 0
  return {
    next(firstMs: number): number {
      const left = length - drawn
      length = Math.min(capMs / 2, Math.max(firstMs, 2 * length))
      drawn = random() * length
      return left + drawn
    },
    reset(): void {
      length = 0
      drawn = 0
    },
  }
}

/** Waits, but not through a change of network: what was unreachable may be reachable now. */
async function waitUnlessMoved(
  ms: number,
  {
    clock,
    random,
    signal,
    network,
  }: Required<Pick<StayOptions, 'clock' | 'random' | 'network'>> & {
    readonly signal: AbortSignal
  },
): Promise<void> {
  if (ms <= lookMs) return clock.wait(ms, signal)
  const before = network()
  for (let left = ms; left > 0; left -= lookMs) {
    if (left < ms && network() !== before)
      return clock.wait(Math.min(left, random() * soonMs), signal)
    await clock.wait(Math.min(left, lookMs), signal)
  }
}

function anotherHolder({ thingName }: Credential, cause: CertvendError): CertvendError {
  return new CertvendError(
    'ERR_SESSION_TAKEN_OVER',
    `sessions of ${thingName} end soon after they open, ${shortInARow} or more in a row`,
    { cause },
  )
}

function credentialOf(source: CredentialSource): Credential {
  const credential = 'current' in source ? source.current() : source
  if (!credential) throw new TypeError('the store holds no credential; call ensureCredential first')
  return credential
}
