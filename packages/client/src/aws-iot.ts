/**
 * Session over aws-iot-device-sdk-v2: the transport for keys in PKCS#11 tokens.
 *
 *     import { openSession } from '@certvend/client/aws-iot'
 *     const session = await connect(credential, { transport: openSession })
 *
 * The SDK is an optional peer with native code; who does not import this file does not need it. It
 * keeps the promises of a session as far as the SDK lets it: `docs/aws-iot.md` lists what differs.
 */
import { openLine, type SdkFailure } from './aws-crt.ts'
import { answered, endOf, isLoss } from './aws-refusal.ts'
import { systemClock } from './clock.ts'
import { CertvendError } from './errors.ts'
import { openInbox } from './inbox.ts'
import { abandon, freeIdentifier, type Held, type Outbox } from './outbox.ts'
import { authority, proxyFor } from './proxy.ts'
import { judgeOwn, type Session, type SessionEnd, type Transport } from './session.ts'

/** Bytes that may wait for a slow reader where the SDK cannot slow the server. */
const mostUnread = 16 * 1024 * 1024
/** How long a farewell may take, in milliseconds. */
const farewellMs = 2000

/** Opens one session; see {@link Transport}. */
export const openSession: Transport = async (credential, options) => {
  const { clock = systemClock, signal, deadlineMs = 30_000, proxy: given, proxyAnchors } = options
  const proxies = {
    ...(given === undefined ? {} : { proxy: given }),
    ...(proxyAnchors ? { proxyAnchors } : {}),
  }
  signal?.throwIfAborted()
  judgeOwn(credential, clock.now())
  const { host, port } = credential.endpoint
  const proxy = proxyFor(credential.endpoint, options)
  const place = `${authority(host, port)}${proxy ? ` (through proxy ${proxy.place})` : ''}`
  const patience = { signal, deadlineMs, deadline: AbortSignal.timeout(deadlineMs) }
  const outbox: Outbox = options.outbox ?? new Map()
  const inbox = openInbox(clock)
  let delivered = Promise.resolve()
  let unread = 0

  const granted = new Set<string>()
  let over: SessionEnd | undefined
  let closing = false
  const waiting = new Set<(end: SessionEnd) => void>()
  let settleEnd: (end: SessionEnd) => void = () => {}
  const ended = new Promise<SessionEnd>((resolve) => {
    settleEnd = resolve
  })
  const finish = (end: SessionEnd): void => {
    if (over) return
    over = end
    signal?.removeEventListener('abort', onAbort)
    void line.leave()
    for (const tell of waiting) tell(end)
    inbox.close()
    if (!options.outbox) abandon(outbox, endError(end))
    settleEnd(end)
  }

  const line = await openLine(
    credential,
    { ...options, deadlineMs, throughProxy: proxy },
    {
      onMessage(message, acknowledge) {
        const { length } = message.payload
        unread += length
        delivered = delivered
          .then(() => inbox.deliver(message))
          .then(() => {
            unread -= length
            acknowledge?.()
          })
        if (unread > mostUnread) finish({ reason: 'lost', error: tooSlow() })
      },
      onLost: (failure) => finish({ reason: 'lost', error: endOf(failure, place) }),
    },
  )
  const sessionPresent = await answered(line, credential, { ...proxies, patience, place, clock })
  signal?.addEventListener('abort', onAbort, { once: true })
  if (signal?.aborted) onAbort()

  function onAbort(): void {
    void close()
  }
  async function close(): Promise<void> {
    if (!over && !closing) {
      closing = true
      await Promise.race([line.leave(), systemClock.wait(farewellMs)])
      finish({ reason: 'closed' })
    }
    await ended
  }

  /** Sends what the outbox holds under `identifier`; PUBACK takes it out. */
  const send = (identifier: number, held: Held): void => {
    const { topic, retain } = held
    const settle = (error?: CertvendError): void => {
      if (outbox.get(identifier) !== held) return
      outbox.delete(identifier)
      held.settle(error)
    }
    line.publish({ topic, payload: Buffer.from(held.payload), qos: 1, retain }).then(
      (code) =>
        settle(
          code < 128
            ? undefined
            : new CertvendError(
                'ERR_REQUEST_REFUSED',
                `${place} refused the publish to ${topic} (reason ${code})`,
              ),
        ),
      (failure: SdkFailure) => {
        // Otherwise the connection has ended, or is about to: that decides over what is held.
        if (!over && !closing && !isLoss(failure))
          settle(requestRefused(`cannot publish to ${topic}`, failure))
      },
    )
  }
  for (const [identifier, held] of outbox) {
    const again = { ...held, sent: true }
    outbox.set(identifier, again)
    send(identifier, again)
  }

  return {
    thingName: credential.thingName,
    sessionPresent,
    ended,
    close,
    publish: (topic, payload, { qos = 1, retain = false, signal: within } = {}) =>
      new Promise<void>((resolve, reject) => {
        within?.throwIfAborted()
        if (over || closing) return reject(endError(over ?? { reason: 'closed' }))
        const bytes = Buffer.from(payload as string)
        const onGivenUp = (): void => settle(within?.reason)
        const onEnd = (end: SessionEnd): void => settle(endError(end))
        const settle = (error?: unknown): void => {
          within?.removeEventListener('abort', onGivenUp)
          waiting.delete(onEnd)
          if (error === undefined) resolve()
          else reject(error)
        }
        within?.addEventListener('abort', onGivenUp, { once: true })
        if (qos === 1) {
          const identifier = freeIdentifier(outbox)
          const held: Held = { topic, payload: bytes, retain, sent: true, settle }
          outbox.set(identifier, held)
          send(identifier, held)
        } else {
          waiting.add(onEnd)
          line.publish({ topic, payload: bytes, qos, retain }).then(
            () => settle(),
            (failure: SdkFailure) => {
              if (!isLoss(failure)) settle(requestRefused(`cannot publish to ${topic}`, failure))
            },
          )
        }
      }),
    async subscribe(filter, { qos = 1 } = {}) {
      if (over || closing) throw endError(over ?? { reason: 'closed' })
      const messages = inbox.open(filter, () => {
        if (granted.delete(filter) && !over && !closing) void line.unsubscribe(filter)
      })
      try {
        const code = await new Promise<number>((resolve, reject) => {
          const onEnd = (end: SessionEnd): void => reject(endError(end))
          waiting.add(onEnd)
          line
            .subscribe(filter, qos)
            .then(resolve, (failure: SdkFailure) => {
              if (!isLoss(failure)) reject(requestRefused(`cannot subscribe to ${filter}`, failure))
            })
            .finally(() => waiting.delete(onEnd))
        })
        if (code >= 128)
          throw new CertvendError(
            'ERR_REQUEST_REFUSED',
            `${place} refused the subscription to ${filter}`,
          )
        granted.add(filter)
        return messages
      } catch (error) {
        await messages.return()
        throw error
      }
    },
  } satisfies Session
}

const requestRefused = (message: string, cause: unknown): CertvendError =>
  new CertvendError('ERR_REQUEST_REFUSED', message, { cause })

const tooSlow = (): CertvendError =>
  new CertvendError(
    'ERR_SESSION_LOST',
    `more than ${mostUnread} bytes wait for a slow reader, and the SDK cannot slow the server`,
  )

const endError = (end: SessionEnd): CertvendError =>
  end.reason === 'lost'
    ? end.error
    : new CertvendError('ERR_SESSION_LOST', 'the session was closed before the server acknowledged')
