/**
 * One MQTT connection of aws-iot-device-sdk-v2, in a shape of our own. The only file that knows the
 * SDK, which is loaded when the first connection is opened.
 *
 * The SDK reconnects by itself and cannot be told not to, so a line leaves for good as soon as its
 * connection is lost; until then the SDK only waits. Its TLS is s2n's: it trusts what it is given and
 * nothing else, and says little about why it failed. `docs/aws-iot.md` lists what differs.
 */
import type { Credential } from './credential.ts'
import { isPkcs11Key, type Pkcs11Key } from './key.ts'
import { type KeyTrouble, keyTrouble } from './key-trouble.ts'
import { parseKeyUri } from './pkcs11-uri.ts'
import type { HttpProxy } from './proxy.ts'
import type { Message, Qos, SessionOptions } from './session.ts'
import { parseTrustAnchors } from './trust.ts'

type Sdk = typeof import('aws-iot-device-sdk-v2')

/** A failure in the SDK's words. */
export interface SdkFailure extends Error {
  /** Such as `AWS_IO_SOCKET_CLOSED`; empty when the SDK gives none. */
  readonly code: string
  /** CONNACK's or DISCONNECT's, MQTT 5 only. */
  readonly reason?: number
}

export interface LineHandlers {
  /** `acknowledge` is absent where the SDK acknowledges by itself (QoS 0, and MQTT 3.1.1). */
  onMessage(message: Message, acknowledge?: () => void): void
  /** Told once, after {@link Line.connect} resolved. */
  onLost(failure: SdkFailure): void
}

export interface Line {
  /** Resolves at CONNACK with whether the server held a session; rejects with an {@link SdkFailure}. */
  connect(): Promise<boolean>
  /** Resolves with PUBACK's reason code, 0 where there is none; rejects with an {@link SdkFailure}. */
  publish(message: Message): Promise<number>
  /** Resolves with SUBACK's code, 128 and above for a refusal. */
  subscribe(filter: string, qos: Qos): Promise<number>
  /** Resolves at UNSUBACK, or when there will be none. */
  unsubscribe(filter: string): Promise<void>
  /**
   * Says DISCONNECT if it can, gives up what is under way, and frees what the SDK holds. Resolves when
   * that is done, after a lost connection some seconds later; repeating it does nothing.
   */
  leave(): Promise<void>
}

export interface LineOptions extends SessionOptions {
  readonly deadlineMs: number
  readonly throughProxy: HttpProxy | undefined
}

/** How long the SDK waits before it would reconnect; it ends a lost connection only after that. */
const reconnectMs = 5000
/** QoS 1 messages that the server may send ahead of our acknowledgements. */
const receiveMaximum = 16

/**
 * Prepares a line for one credential; nothing is sent yet.
 *
 * @throws {CertvendError} `ERR_KEY_UNAVAILABLE`; TypeError when the SDK is not installed, or has no
 *   binary for this machine
 */
export async function openLine(
  credential: Credential,
  options: LineOptions,
  handlers: LineHandlers,
): Promise<Line> {
  const sdk = await load()
  const line = options.protocol === '5' ? openLine5 : openLine3
  return line(sdk, credential, options, handlers)
}

async function load(): Promise<Sdk> {
  try {
    return await import('aws-iot-device-sdk-v2')
  } catch (cause) {
    throw new TypeError(
      "@certvend/client/aws-iot needs the package 'aws-iot-device-sdk-v2' (npm install aws-iot-device-sdk-v2), which has no binary for 32-bit ARM",
      { cause },
    )
  }
}

function tlsContext(
  { io }: Sdk,
  credential: Credential,
): InstanceType<Sdk['io']['ClientTlsContext']> {
  const { endpoint, certificateChain, privateKey } = credential
  const anchors = parseTrustAnchors(endpoint.trustAnchors)
  const build = (options: InstanceType<Sdk['io']['TlsContextOptions']>) => {
    options.override_default_trust_store(anchors.pem)
    if (endpoint.alpn !== undefined) options.alpn_list = [endpoint.alpn]
    // It wants RSA-PSS, which aws-crt cannot make in a token; without it, TLS 1.2 alone is used there.
    const pss = !isPkcs11Key(privateKey) || privateKey.publicKey.asymmetricKeyType !== 'rsa'
    if (pss) heedModernTls(io, options)
    return new io.ClientTlsContext(options)
  }
  if (!isPkcs11Key(privateKey))
    return build(io.TlsContextOptions.create_client_with_mtls(certificateChain, privateKey.toPem()))
  return withToken(io, privateKey, (token) =>
    build(
      io.TlsContextOptions.create_client_with_mtls_pkcs11({
        ...token,
        cert_file_contents: certificateChain,
      }),
    ),
  )
}

/** TLS 1.2 at least. On Linux s2n heeds a named policy, and passes over the minimum. */
function heedModernTls(io: Sdk['io'], options: InstanceType<Sdk['io']['TlsContextOptions']>): void {
  const policy = io.TlsCipherPreference.TLSv1_2_2025_07
  options.min_tls_version = io.TlsVersion.TLSv1_2
  if (io.tls_cipher_preference_is_supported(policy)) options.tls_cipher_preference = policy
}

type TokenOptions = Pick<
  Parameters<Sdk['io']['TlsContextOptions']['create_client_with_mtls_pkcs11']>[0],
  'pkcs11_lib' | 'user_pin' | 'token_label' | 'private_key_object_label'
>

/** Logs in to a token with the PIN from its file; the SDK keeps no copy of it that we could see. */
function withToken<T>(io: Sdk['io'], key: Pkcs11Key, use: (token: TokenOptions) => T): T {
  const address = parseKeyUri(key.uri)
  const pin = key.pin.read()
  try {
    const library = new io.Pkcs11Lib(address.module)
    try {
      return use({
        pkcs11_lib: library,
        user_pin: pin,
        token_label: address.token,
        private_key_object_label: address.object,
      })
    } finally {
      library.close() // the context holds its own
    }
  } catch (cause) {
    const trouble = tokenTrouble(nameIn(cause))
    if (trouble === 'wrong-pin' || trouble === 'locked') key.pin.refuse()
    throw trouble ? keyTrouble(trouble, address, { cause }) : cause
  }
}

function tokenTrouble(name: string): KeyTrouble | undefined {
  if (/CKR_PIN_(INCORRECT|INVALID|LEN_RANGE)$/.test(name)) return 'wrong-pin'
  if (/CKR_PIN_LOCKED$/.test(name)) return 'locked'
  if (/SHARED_LIBRARY|PKCS11_VERSION|PKCS11_UNKNOWN/.test(name)) return 'no-module'
  if (/PKCS11_TOKEN_NOT_FOUND$/.test(name)) return 'no-token'
  if (/PKCS11_KEY_(NOT_FOUND|TYPE_UNSUPPORTED)$/.test(name)) return 'no-key'
  return undefined
}

/** The SDK throws strings, errors with a name in their text, and errors that hold either. */
function textOf(reason: unknown): string {
  if (typeof reason === 'string') return reason
  const { error_name, error, message } = Object(reason)
  return [error_name, message, typeof error === 'string' ? error : ''].filter(Boolean).join(' ')
}

const nameIn = (reason: unknown): string => /AWS_[A-Z0-9_]+/.exec(textOf(reason))?.[0] ?? ''

function failure(reason: unknown, code?: number): SdkFailure {
  return Object.assign(new Error(textOf(reason) || 'the SDK gave no reason'), {
    code: nameIn(reason),
    ...(code === undefined ? {} : { reason: code }),
  })
}

/** Runs one call into the SDK, with its failures in our shape. */
async function told<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (reason) {
    throw failure(reason)
  }
}

/** A tunnel by CONNECT; its own TLS protects the proxy hop only. */
function tunnel(
  { http, io }: Sdk,
  { throughProxy, proxyAnchors }: LineOptions,
): InstanceType<Sdk['http']['HttpProxyOptions']> | undefined {
  if (!throughProxy) return undefined
  const { host, port, secure } = throughProxy
  const basic = throughProxy.authorization()?.replace(/^Basic /, '')
  const [, user, password] =
    /^(.*?):(.*)$/s.exec(Buffer.from(basic ?? '', 'base64').toString()) ?? []
  const method = http.HttpProxyAuthenticationType
  let tls: InstanceType<Sdk['io']['TlsConnectionOptions']> | undefined
  if (secure) {
    const options = new io.TlsContextOptions()
    options.verify_peer = true
    if (proxyAnchors) options.override_default_trust_store(proxyAnchors.pem)
    heedModernTls(io, options)
    tls = new io.TlsConnectionOptions(new io.ClientTlsContext(options), host)
  }
  return new http.HttpProxyOptions(
    host,
    port,
    basic === undefined ? method.None : method.Basic,
    user,
    password,
    tls,
    http.HttpProxyConnectionType.Tunneling,
  )
}

const ignore = (): void => {}

const hostOf = ({ endpoint }: Credential): string => endpoint.host.replace(/^\[|\]$/g, '')
/** A copy: the SDK's buffer is not ours to keep, and an empty one arrives detached. */
function bytesOf(payload: unknown): Buffer {
  const buffer = payload as ArrayBuffer | undefined
  return buffer?.byteLength ? Buffer.from(new Uint8Array(buffer)) : Buffer.alloc(0)
}
/** Half a keep-alive, so that a dead connection is found within one and a half. */
const pingMs = ({ keepAliveSeconds = 60, deadlineMs }: LineOptions): number =>
  Math.min(deadlineMs, keepAliveSeconds * 500)

function openLine3(
  sdk: Sdk,
  credential: Credential,
  options: LineOptions,
  { onMessage, onLost }: LineHandlers,
): Line {
  const { io, mqtt } = sdk
  const { will, clean = true, keepAliveSeconds = 60, deadlineMs } = options
  const proxy = tunnel(sdk, options)
  const connection = new mqtt.MqttClient().new_connection({
    client_id: credential.thingName,
    host_name: hostOf(credential),
    port: credential.endpoint.port,
    clean_session: clean,
    keep_alive: keepAliveSeconds,
    ping_timeout: pingMs(options),
    protocol_operation_timeout: 0,
    reconnect_min_sec: reconnectMs / 1000,
    reconnect_max_sec: reconnectMs / 1000,
    socket_options: new io.SocketOptions(undefined, undefined, deadlineMs),
    tls_ctx: tlsContext(sdk, credential),
    disable_metrics: true, // would go into the user name
    ...(proxy ? { proxy_options: proxy } : {}),
    ...(will
      ? { will: new mqtt.MqttWill(will.topic, will.qos ?? 1, will.payload, will.retain ?? false) }
      : {}),
  })
  let left: Promise<void> | undefined
  // Refused while it is still connecting; then it is left when it has.
  const disconnect = (): Promise<void> => connection.disconnect().catch(() => {})
  const leave = (): Promise<void> => (left ??= disconnect())
  const lose = (reason: unknown): void => {
    if (left) return
    void leave()
    onLost(failure(reason))
  }
  connection.on('interrupt', lose)
  connection.on('resume', () => void disconnect())
  connection.on('message', (topic, payload, _dup, qos, retain) => {
    // The SDK ends the process for what a listener throws.
    try {
      onMessage({ topic, payload: bytesOf(payload), qos: qos === 0 ? 0 : 1, retain })
    } catch (error) {
      lose(error)
    }
  })
  return {
    async connect() {
      const sessionPresent = await told(() => connection.connect())
      if (left) void disconnect()
      return sessionPresent
    },
    async publish({ topic, payload, qos, retain }) {
      await told(() => connection.publish(topic, payload, qos, retain))
      return 0
    },
    async subscribe(filter, qos) {
      const granted = await told(() => connection.subscribe(filter, qos))
      return granted.error_code ? 128 : granted.qos
    },
    unsubscribe: (filter) => connection.unsubscribe(filter).then(ignore, ignore),
    leave,
  }
}

function openLine5(
  sdk: Sdk,
  credential: Credential,
  options: LineOptions,
  { onMessage, onLost }: LineHandlers,
): Line {
  const { io, mqtt5 } = sdk
  const { will, clean = true, keepAliveSeconds = 60, deadlineMs } = options
  const proxy = tunnel(sdk, options)
  const client = new mqtt5.Mqtt5Client({
    hostName: hostOf(credential),
    port: credential.endpoint.port,
    sessionBehavior: clean
      ? mqtt5.ClientSessionBehavior.Clean
      : mqtt5.ClientSessionBehavior.RejoinAlways,
    retryJitterMode: mqtt5.RetryJitterType.None,
    minReconnectDelayMs: reconnectMs,
    maxReconnectDelayMs: reconnectMs,
    connackTimeoutMs: deadlineMs,
    pingTimeoutMs: pingMs(options),
    ackTimeoutSeconds: 0,
    offlineQueueBehavior: mqtt5.ClientOperationQueueBehavior.FailAllOnDisconnect,
    socketOptions: new io.SocketOptions(undefined, undefined, deadlineMs),
    tlsCtx: tlsContext(sdk, credential),
    disableMetrics: true,
    ...(proxy ? { httpProxyOptions: proxy } : {}),
    connectProperties: {
      clientId: credential.thingName,
      keepAliveIntervalSeconds: keepAliveSeconds,
      receiveMaximum,
      // Without it a session ends with its connection; the server has its own upper bound.
      ...(clean ? {} : { sessionExpiryIntervalSeconds: 0xffff_ffff }),
      ...(will
        ? {
            will: {
              topicName: will.topic,
              payload: will.payload,
              qos: will.qos ?? 1,
              retain: will.retain ?? false,
            },
          }
        : {}),
    },
  })
  let left: Promise<void> | undefined
  const leave = (): Promise<void> =>
    (left ??= new Promise((resolve) => {
      client.on('stopped', () => {
        client.close()
        resolve()
      })
      client.stop({ reasonCode: mqtt5.DisconnectReasonCode.NormalDisconnection })
    }))
  client.on('error', () => {}) // told elsewhere
  client.on('messageReceived', ({ message, acknowledgementControl }) => {
    const { topicName: topic, payload, qos, retain = false } = message
    const acknowledgement = acknowledgementControl?.acquireHandle()
    onMessage(
      { topic, payload: bytesOf(payload), qos: qos === 0 ? 0 : 1, retain },
      acknowledgement ? () => void (left ?? acknowledgement.invokeAcknowledgement()) : undefined,
    )
  })
  return {
    connect: () =>
      new Promise((resolve, reject) => {
        let connected = false
        client.on('connectionSuccess', ({ connack }) => {
          connected = true
          resolve(connack.sessionPresent)
        })
        client.on('connectionFailure', ({ error, connack }) => {
          void leave()
          reject(failure(error, connack?.reasonCode))
        })
        client.on('disconnection', ({ error, disconnect }) => {
          if (left || !connected) return
          void leave()
          onLost(failure(error, disconnect?.reasonCode))
        })
        client.start()
      }),
    async publish({ topic, payload, qos, retain }) {
      const completion = await told(() =>
        client.publish({ topicName: topic, payload: payload as Buffer, qos, retain }),
      )
      return completion?.reasonCode ?? 0
    },
    async subscribe(filter, qos) {
      const { reasonCodes } = await told(() =>
        client.subscribe({ subscriptions: [{ topicFilter: filter, qos }] }),
      )
      return reasonCodes[0] ?? 128
    },
    unsubscribe: (filter) => client.unsubscribe({ topicFilters: [filter] }).then(ignore, ignore),
    leave,
  }
}
