/**
 * Session over MQTT.js: the default transport, pure JavaScript.
 *
 * We make the TLS socket and the back-off; MQTT.js speaks the protocol and nothing else. What went
 * wrong is told by CONNACK first and by the socket second: IoT Core accepts any client certificate
 * in TLS and closes before CONNACK, for unknown, inactive, policy-less and pending ones alike.
 */
import { connect as connectTls, type TLSSocket } from 'node:tls'
import { type IClientOptions, MqttClient } from 'mqtt'
import { systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { CertvendError } from './errors.ts'
import { type Inbox, openInbox } from './inbox.ts'
import { refused, socketFailure } from './refusal.ts'
import type { Session, SessionEnd, SessionOptions, Transport } from './session.ts'
import { parseTrustAnchors, tlsOptions } from './trust.ts'

/** Opens one session; see {@link Transport}. */
export const openSession: Transport = async (credential, options) => {
  const { clock = systemClock, signal, deadlineMs = 30_000 } = options
  const now = clock.now()
  if (credential.notAfter < now)
    throw new CertvendError(
      'ERR_CREDENTIAL_EXPIRED',
      `the certificate expired on ${credential.notAfter.toISOString()}; this device's clock says ${now.toISOString()}`,
    )
  let socket: TLSSocket | undefined
  let secured = false
  const client = new MqttClient(
    () => {
      socket = dial(credential)
      socket.once('secureConnect', () => {
        secured = true
      })
      return socket as never
    },
    clientOptions(credential, options),
  )

  const place = `${credential.endpoint.host}:${credential.endpoint.port}`
  const inbox: Inbox = openInbox()
  let error: Error | undefined
  let closing = false
  let over: SessionEnd | undefined
  const waiting = new Set<(end: SessionEnd) => void>()
  let settleEnd: (end: SessionEnd) => void = () => {}
  const ended = new Promise<SessionEnd>((resolve) => {
    settleEnd = resolve
  })

  const why = (): CertvendError => socketFailure(error, { place, secured, now })
  client.on('error', (one) => {
    error ??= one
  })
  client.on('disconnect', ({ reasonCode }) => {
    error ??= new CertvendError(
      'ERR_SESSION_LOST',
      `${place} ended the session (reason ${reasonCode})`,
    )
  })
  client.handleMessage = ({ topic, payload, qos, retain }, done) => {
    const bytes = typeof payload === 'string' ? Buffer.from(payload) : payload
    inbox
      .deliver({ topic, payload: bytes, qos: qos === 0 ? 0 : 1, retain })
      .then(() => done(), done)
  }

  const sessionPresent = await new Promise<boolean>((resolve, reject) => {
    const give = (reason: unknown): void => {
      stopWaiting()
      client.end(true)
      socket?.destroy()
      reject(reason)
    }
    const onAbort = (): void => give(signal?.reason)
    const deadline = AbortSignal.timeout(deadlineMs)
    const onDeadline = (): void =>
      give(
        new CertvendError('ERR_TIMEOUT', `${place} did not answer within ${deadlineMs / 1000} s`),
      )
    const stopWaiting = (): void => {
      signal?.removeEventListener('abort', onAbort)
      deadline.removeEventListener('abort', onDeadline)
      client.removeListener('close', onClose)
      client.removeListener('connect', onConnect)
    }
    const onClose = (): void => give(refused(error, { place, secured, now }))
    const onConnect = ({ sessionPresent: present }: { sessionPresent: boolean }): void => {
      stopWaiting()
      resolve(present)
    }
    signal?.addEventListener('abort', onAbort, { once: true })
    deadline.addEventListener('abort', onDeadline, { once: true })
    client.once('close', onClose)
    client.once('connect', onConnect)
    client.connect()
  })

  error = undefined
  const onAbort = (): void => void close()
  signal?.addEventListener('abort', onAbort, { once: true })
  const finish = (end: SessionEnd): void => {
    if (over) return
    over = end
    signal?.removeEventListener('abort', onAbort)
    for (const tell of waiting) tell(end)
    inbox.close()
    client.end(true)
    settleEnd(end)
  }
  client.once('close', () =>
    finish(closing ? { reason: 'closed' } : { reason: 'lost', error: why() }),
  )

  async function close(): Promise<void> {
    if (!closing) {
      closing = true
      client.end(false, () => finish({ reason: 'closed' }))
      // A peer that does not close its side is not waited for.
      socket?.once('finish', () => socket?.destroy())
    }
    await ended
  }

  /** Runs one exchange with the server, which the session's end also ends. */
  const exchange = <T>(
    start: (resolve: (value: T) => void, reject: (reason: unknown) => void) => void,
    within?: AbortSignal,
  ): Promise<T> =>
    new Promise<T>((resolve, reject) => {
      within?.throwIfAborted()
      if (over) return reject(endError(over))
      const onEnd = (end: SessionEnd): void => settle(() => reject(endError(end)))
      const onGivenUp = (): void => settle(() => reject(within?.reason))
      const settle = (finally_: () => void): void => {
        waiting.delete(onEnd)
        within?.removeEventListener('abort', onGivenUp)
        finally_()
      }
      waiting.add(onEnd)
      within?.addEventListener('abort', onGivenUp, { once: true })
      start(
        (value) => settle(() => resolve(value)),
        (reason) => settle(() => reject(reason)),
      )
    })

  return {
    thingName: credential.thingName,
    sessionPresent,
    ended,
    close,
    publish: (topic, payload, { qos = 1, retain = false, signal: within } = {}) =>
      exchange<void>((resolve, reject) => {
        const bytes = typeof payload === 'string' ? payload : Buffer.from(payload)
        client.publish(topic, bytes, { qos, retain }, (failure) => {
          if (!failure) resolve()
          else if (over || closing) reject(endError(over ?? { reason: 'closed' }))
          else reject(requestRefused(`${place} refused the publish to ${topic}`, failure))
        })
      }, within),
    async subscribe(filter, { qos = 1 } = {}) {
      const messages = inbox.open(filter)
      try {
        await exchange<void>((resolve, reject) => {
          client.subscribe(filter, { qos }, (failure, granted) => {
            if (!failure && granted?.every((one) => one.qos < 128)) resolve()
            else reject(requestRefused(`${place} refused the subscription to ${filter}`, failure))
          })
        })
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

const endError = (end: SessionEnd): CertvendError =>
  end.reason === 'lost'
    ? end.error
    : new CertvendError('ERR_SESSION_LOST', 'the session was closed before the server acknowledged')

function dial({ endpoint, certificateChain, privateKey }: Credential): TLSSocket {
  const identity = { certificateChain, privateKey: privateKey.toPem() }
  const { servername, ...options } = tlsOptions(
    parseTrustAnchors(endpoint.trustAnchors),
    endpoint.host,
    identity,
  )
  const socket = connectTls({
    ...options,
    ...(servername === undefined ? {} : { servername }),
    host: endpoint.host,
    port: endpoint.port,
    ...(endpoint.alpn === undefined ? {} : { ALPNProtocols: [endpoint.alpn] }),
  })
  return socket.setNoDelay(true)
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
    connectTimeout: 2 ** 30, // the deadline is ours
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
