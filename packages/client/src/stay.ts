/**
 * The loop that keeps a session open, for ever.
 *
 * A fleet behind one broker must not return in one second: after an established session the first
 * attempt, and each later one at least, is spread over a quarter of a minute; then full jitter
 * doubles to a cap. Only a connection that lasted resets it, so that neither a flapping broker nor
 * another holder of the same client id makes a storm.
 */
import { type Clock, systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { CertvendError } from './errors.ts'
import { networkFingerprint } from './network.ts'
import { abandon, type Outbox } from './outbox.ts'
import { maybePending } from './refusal.ts'
import type { Backoff } from './retry.ts'
import { connect, type Session, type SessionOptions } from './session.ts'

export interface StayOptions extends Omit<SessionOptions, 'outbox'> {
  /** Waits between failed attempts. Default 1 s doubling to 5 min. */
  readonly backoff?: Backoff
  /** Upper bound of the waits after an established session, at least, in milliseconds. Default 15 000. */
  readonly spreadMs?: number
  /** Uniform in [0, 1). Default `Math.random`. */
  readonly random?: () => number
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
const lookMs = 10_000
/** After a change of network the next attempt comes within this time, in milliseconds. */
const soonMs = 2000

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
  let wake = (): void => {}
  const loop = keepConnected(source, { ...options, signal }, (session) => {
    open = session
    wake()
    void session.ended.then(() => {
      if (open === session) open = undefined // nobody took it while it lived
    })
  }).finally(() => wake())
  let over = false
  loop.then(
    () => {
      over = true
    },
    () => {
      over = true
    },
  )
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
  const backoff = options.backoff ?? { baseMs: 1000, capMs: 5 * 60_000 }
  const outbox: Outbox = new Map()
  let failures = 0
  let short = 0
  let established = false
  try {
    while (!signal.aborted) {
      const credential = credentialOf(source)
      let failure: CertvendError
      try {
        const session = await connect(credential, { ...options, outbox })
        const opened = clock.now().getTime()
        established = true
        onOpen(session)
        const end = await session.ended
        if (end.reason === 'closed' && signal.aborted) return
        const lasted = clock.now().getTime() - opened >= lastedMs
        failures = lasted ? 0 : failures + 1
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
        failures++
        failure = maybePending(error, credential, clock.now())
      }
      const doubled = Math.min(backoff.capMs, backoff.baseMs * 2 ** Math.min(failures - 1, 30))
      const waitMs = random() * Math.max(established ? spreadMs : 0, doubled)
      options.onRetry?.({ error: failure, waitMs })
      await waitUnlessMoved(waitMs, { clock, random, signal })
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

/** Waits, but not through a change of network: what was unreachable may be reachable now. */
async function waitUnlessMoved(
  ms: number,
  { clock, random, signal }: { clock: Clock; random: () => number; signal: AbortSignal },
): Promise<void> {
  const before = networkFingerprint()
  for (let left = ms; left > 0; left -= lookMs) {
    if (left < ms && networkFingerprint() !== before)
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
