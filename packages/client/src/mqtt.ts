/**
 * Session over MQTT.js: the default transport, pure JavaScript.
 *
 * We make the TLS socket and the back-off; MQTT.js speaks the protocol and nothing else. What went
 * wrong is told by CONNACK first and by the socket second: IoT Core accepts any client certificate
 * in TLS and closes before CONNACK, for unknown, inactive, policy-less and pending ones alike.
 */
import type { TLSSocket } from 'node:tls'
import { type IClientOptions, MqttClient } from 'mqtt'
import { systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { type Dialed, type DialOptions, dial } from './dial.ts'
import { CertvendError } from './errors.ts'
import { openInbox } from './inbox.ts'
import { limitIntake, mostHeld } from './intake.ts'
import { addressStillOurs } from './network.ts'
import { abandon, freeIdentifier, type Outbox } from './outbox.ts'
import { outgoingStore } from './outgoing-store.ts'
import type { Patience } from './patience.ts'
import { type Circumstances, refused, socketFailure } from './refusal.ts'
import {
  judgeOwn,
  type Session,
  type SessionEnd,
  type SessionOptions,
  type Transport,
} from './session.ts'
import { parseTrustAnchors } from './trust.ts'

const closedByUs = (): CertvendError =>
  new CertvendError('ERR_SESSION_LOST', 'the session was closed before the server acknowledged')

const endError = (end: SessionEnd): CertvendError =>
  end.reason === 'lost' ? end.error : closedByUs()

/** Opens one session; see {@link Transport}. */
export const openSession: Transport = async (credential, options) => {
  const { clock = systemClock, signal, deadlineMs = 30_000 } = options
  signal?.throwIfAborted()
  const now = clock.now()
  judgeOwn(credential, now)
  const patience = { signal, deadlineMs, deadline: AbortSignal.timeout(deadlineMs) }
  const { socket, place } = await dialBroker(credential, patience, { ...options, now })
  const outbox: Outbox = options.outbox ?? new Map()
  const inbox = openInbox(clock)
  const line = openLine(socket, credential, options, outbox)
  const { client } = line

  let unread = false
  client.handleMessage = ({ topic, payload, qos, retain }, done) => {
    const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload
    unread = true
    inbox
      .deliver({ topic, payload: bytes, qos: qos === 0 ? 0 : 1, retain })
      .finally(() => {
        unread = false
      })
      .then(() => done(), done)
  }
  const silent = client.onKeepaliveTimeout.bind(client)
  // Behind a message that waits for its reader nothing is read, PINGRESP neither.
  client.onKeepaliveTimeout = () => (unread ? client.reschedulePing(true) : silent())
  client.on('packetreceive', (packet) => {
    if (packet.cmd !== 'puback') return
    const held = outbox.get(packet.messageId ?? 0)
    const code = packet.reasonCode ?? 0
    outbox.delete(packet.messageId ?? 0)
    // 16 says that nobody subscribes, which is no failure (MQTT 5 section 3.4.2.1).
    held?.settle(
      code < 128
        ? undefined
        : new CertvendError(
            'ERR_REQUEST_REFUSED',
            `${place} refused the publish to ${held.topic} (reason ${code})`,
          ),
    )
  })

  let largest = Number.POSITIVE_INFINITY
  client.once('connect', ({ properties }) => {
    largest = properties?.maximumPacketSize ?? largest
    // A ping after two thirds, so that a silent server is found within one keep-alive, not one and a half.
    client.keepaliveManager?.setKeepalive((client.keepalive * 2) / 3)
  })
  const sessionPresent = await answered(line, patience, { place, secured: true, now })

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
    for (const tell of waiting) tell(end)
    inbox.close()
    if (!options.outbox) abandon(outbox, endError(end))
    client.end(true)
    settleEnd(end)
  }
  client.once('close', () => {
    if (closing) finish({ reason: 'closed' })
    else finish({ reason: 'lost', error: socketFailure(line.error, { place, secured: true, now }) })
  })
  const onAbort = (): void => void close()
  signal?.addEventListener('abort', onAbort, { once: true })
  if (signal?.aborted) onAbort() // an acknowledgement that came with CONNACK may have led to it

  async function close(): Promise<void> {
    if (!closing) {
      closing = true
      // By hand: MQTT.js would first wait for every acknowledgement, for ever if the server is silent.
      socket.end(disconnect, () => socket.destroy())
      AbortSignal.timeout(farewellMs).addEventListener('abort', () => socket.destroy())
    }
    await ended
  }

  /** Runs one exchange with the server, which the session's end also ends. */
  const exchange = <T>(
    start: (resolve: (value: T) => void, reject: (reason: unknown) => void) => void,
  ): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      if (over) return reject(endError(over))
      const onEnd = (end: SessionEnd): void => reject(endError(end))
      waiting.add(onEnd)
      start(
        (value) => {
          waiting.delete(onEnd)
          resolve(value)
        },
        (reason) => {
          waiting.delete(onEnd)
          reject(reason)
        },
      )
    })

  return {
    thingName: credential.thingName,
    sessionPresent,
    ended,
    close,
    publish: (topic, payload, { qos = 1, retain = false, signal: within } = {}) =>
      new Promise<void>((resolve, reject) => {
        within?.throwIfAborted()
        if (over || closing) return reject(endError(over ?? { reason: 'closed' }))
        const bytes = typeof payload === 'string' ? payload : Buffer.from(payload)
        // MQTT 5 section 3.2.2.3.6: it would end the session, and be sent again by the next.
        if (Buffer.byteLength(topic) + Buffer.byteLength(bytes) + mostHeader > largest)
          return reject(
            requestRefused(`${place} takes packets of at most ${largest} bytes`, undefined),
          )
        const onGivenUp = (): void => settle(within?.reason)
        const settle = (error?: unknown): void => {
          within?.removeEventListener('abort', onGivenUp)
          if (error === undefined) resolve()
          else reject(error)
        }
        within?.addEventListener('abort', onGivenUp, { once: true })
        // Told of an error, it waited behind what was sent again, and the connection ended first.
        const hold = (unsent?: unknown): void => {
          const identifier = unsent ? freeIdentifier(outbox) : line.store.lastPut()
          outbox.set(identifier, { topic, payload: bytes, retain, sent: !unsent, settle })
        }
        const cbStorePut = qos === 1 ? { cbStorePut: hold } : {}
        client.publish(topic, bytes, { qos, retain, ...cbStorePut }, (failure) => {
          if (!failure && qos === 0) settle()
          // What was held is settled by PUBACK or by the outbox's end.
          else if (failure && !isHeld(outbox, settle))
            settle(
              over || closing
                ? endError(over ?? { reason: 'closed' })
                : requestRefused(`cannot publish to ${topic}`, failure),
            )
        })
      }),
    async subscribe(filter, { qos = 1 } = {}) {
      const messages = inbox.open(filter, () => {
        // Nobody waits for UNSUBACK: what is unread elsewhere may stand before it.
        if (granted.delete(filter) && !over && !closing) client.unsubscribe(filter, () => {})
      })
      try {
        await exchange<void>((resolve, reject) => {
          client.subscribe(filter, { qos }, (failure, answers) => {
            if (!failure && answers?.every((one) => one.qos < 128)) resolve()
            else reject(requestRefused(`${place} refused the subscription to ${filter}`, failure))
          })
        })
        granted.add(filter)
        return messages
      } catch (error) {
        await messages.return()
        throw error
      }
    },
  } satisfies Session
}

/** Bytes of a PUBLISH besides its topic and payload, at most, as we send it. */
const mostHeader = 10

const isHeld = (outbox: Outbox, settle: unknown): boolean => {
  for (const held of outbox.values()) if (held.settle === settle) return true
  return false
}

const requestRefused = (message: string, cause: unknown): CertvendError =>
  new CertvendError('ERR_REQUEST_REFUSED', message, { cause })

/** An MQTT.js client over a socket of ours, and what befell it. */
interface Line {
  readonly client: MqttClient
  readonly store: ReturnType<typeof outgoingStore>
  readonly socket: TLSSocket
  /** The first thing that went wrong. */
  readonly error: Error | undefined
}

function openLine(
  socket: TLSSocket,
  credential: Credential,
  options: SessionOptions,
  outbox: Outbox,
): Line {
  const store = outgoingStore(outbox)
  const line: { -readonly [K in keyof Line]: Line[K] } = {
    store,
    socket,
    error: undefined,
    client: new MqttClient(() => socket as never, {
      ...clientOptions(credential, options),
      outgoingStore: store,
    }),
  }
  // MQTT.js reads no further after a packet that is none, but leaves the connection open.
  const end = (error: Error): void => {
    line.error ??= error
    socket.destroy()
  }
  line.client.on('error', end)
  line.client.on('disconnect', ({ reasonCode }) =>
    end(
      new CertvendError(
        'ERR_SESSION_LOST',
        reasonCode === takenOver
          ? 'another connection with this client id took the session over'
          : `the server ended the session${reasonCode === undefined ? '' : ` (reason ${reasonCode})`}`,
      ),
    ),
  )
  const intake = limitIntake(socket, (what) =>
    end(
      new CertvendError('ERR_SESSION_LOST', `the server sends ${what}, which is too much to hold`),
    ),
  )
  line.client.on('packetreceive', intake)
  line.client.on('packetsend', ({ cmd }) => {
    // The keep-alive is when a changed network is looked for: no timer of its own.
    if (cmd === 'pingreq' && !addressStillOurs(socket.localAddress))
      end(new CertvendError('ERR_SESSION_LOST', 'this device left the network it connected from'))
  })
  return line
}

/** DISCONNECT without a reason (MQTT 3.1.1 section 3.14, MQTT 5 section 3.14). */
const disconnect = Buffer.from([0xe0, 0])
/** How long a server that does not read may hold up the end, in milliseconds. */
const farewellMs = 1000

/** MQTT 5 section 3.14.2.1: Session taken over. */
const takenOver = 142

/** Waits for CONNACK. */
function answered(
  line: Line,
  { signal, deadline, deadlineMs }: Patience,
  circumstances: Circumstances,
): Promise<boolean> {
  const { client, socket } = line
  return new Promise((resolve, reject) => {
    const give = (reason: unknown): void => {
      stopWaiting()
      client.end(true)
      socket.destroy()
      reject(reason)
    }
    const onAbort = (): void => give(signal?.reason)
    const onDeadline = (): void =>
      give(
        new CertvendError(
          'ERR_TIMEOUT',
          `${circumstances.place} did not answer within ${deadlineMs / 1000} s`,
        ),
      )
    const onClose = (): void => give(refused(line.error, circumstances))
    const onConnect = ({ sessionPresent }: { sessionPresent: boolean }): void => {
      stopWaiting()
      resolve(sessionPresent)
    }
    const stopWaiting = (): void => {
      signal?.removeEventListener('abort', onAbort)
      deadline.removeEventListener('abort', onDeadline)
      client.removeListener('close', onClose)
      client.removeListener('connect', onConnect)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    deadline.addEventListener('abort', onDeadline, { once: true })
    client.once('close', onClose)
    client.once('connect', onConnect)
    client.connect()
  })
}

function dialBroker(
  { endpoint, certificateChain, privateKey }: Credential,
  patience: Patience,
  options: DialOptions,
): Promise<Dialed> {
  const destination = {
    host: endpoint.host,
    port: endpoint.port,
    alpn: endpoint.alpn,
    anchors: parseTrustAnchors(endpoint.trustAnchors),
    anchorsAre: 'trust anchor',
    identity: { certificateChain, privateKey: privateKey.toPem() },
  } as const
  return dial(destination, patience, options)
}

function clientOptions(credential: Credential, options: SessionOptions): IClientOptions {
  const { will } = options
  return {
    clientId: credential.thingName,
    clean: options.clean ?? true,
    keepalive: options.keepAliveSeconds ?? 60,
    protocolVersion: options.protocol === '5' ? 5 : 4,
    manualConnect: true,
    reconnectPeriod: 0, // its own loop has no jitter and no end
    resubscribe: false,
    queueQoSZero: false,
    writeCache: false, // a table of 65 536 buffers otherwise
    connectTimeout: (options.deadlineMs ?? 30_000) + 60_000, // the deadline is ours
    ...(options.protocol === '5'
      ? {
          properties: {
            // So that an honest server drops what is longer (MQTT 5 section 3.1.2.11.4).
            maximumPacketSize: mostHeld,
            // Without it MQTT 5 forgets a session with its connection; the server has its own upper bound.
            ...(options.clean === false ? { sessionExpiryInterval: 0xffff_ffff } : {}),
          },
        }
      : {}),
    ...(will
      ? {
          will: {
            topic: will.topic,
            payload: Buffer.from(will.payload),
            qos: will.qos ?? 1,
            retain: will.retain ?? false,
          },
        }
      : {}),
  }
}
