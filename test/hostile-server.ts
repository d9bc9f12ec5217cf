/**
 * A TLS listener on loopback that says whatever a test wants, byte by byte, and counts what it saw.
 */
import net, { type AddressInfo } from 'node:net'
import tls, { type TlsOptions } from 'node:tls'
import type { Certified } from './pki.ts'

/** What a peer does with one connection; `reset` ends it by RST instead of FIN. */
export type Talk = (socket: net.Socket, reset: () => void) => void

export interface Peer {
  readonly port: number
  /** TCP connections opened so far. */
  readonly opened: number
  /** Bytes of application data received so far. */
  readonly received: Buffer
  close(): Promise<void>
}

export interface PeerOptions {
  /** Loopback address to listen on. Default 127.0.0.1. */
  readonly address?: string
  /** Without TLS: `talk` gets the bare TCP connection. */
  readonly plain?: boolean
  readonly tls?: TlsOptions
}

/** Listens as `identity`, showing `chain` after the end entity. */
export async function listen(
  identity: Certified,
  chain: readonly Certified[],
  talk: Talk,
  { address = '127.0.0.1', plain = false, tls: further = {} }: PeerOptions = {},
): Promise<Peer> {
  const sockets = new Set<net.Socket>()
  const received: Buffer[] = []
  let opened = 0
  const onSocket = (socket: net.Socket): void => {
    const { remotePort } = socket
    const bare = [...sockets].find((one) => one.remotePort === remotePort)
    socket.on('error', () => {})
    socket.on('data', (bytes) => received.push(bytes))
    talk(socket, () => bare?.resetAndDestroy())
  }
  const server = plain
    ? net.createServer(onSocket)
    : tls.createServer(
        {
          cert: [identity, ...chain].map((one) => one.certificate).join(''),
          key: identity.privateKey,
          ...further,
        },
        onSocket,
      )
  server.on('tlsClientError', () => {})
  server.on('connection', (socket: net.Socket) => {
    opened++
    sockets.add(socket)
    socket.on('error', () => {})
    socket.once('close', () => sockets.delete(socket))
  })
  await new Promise<void>((resolve) => server.listen(0, address, resolve))
  return {
    port: (server.address() as AddressInfo).port,
    get opened() {
      return opened
    },
    get received() {
      return Buffer.concat(received)
    },
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}

/** An HTTP/1.1 response as bytes. */
export function http(
  status: number,
  headers: Readonly<Record<string, string>>,
  body: string | Uint8Array = '',
): Buffer {
  const bytes = Buffer.from(body as string)
  const fields = { 'content-length': String(bytes.length), ...headers }
  const head = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
  return Buffer.concat([
    Buffer.from(`HTTP/1.1 ${status} Whatever\r\n${head.join('')}\r\n`, 'latin1'),
    bytes,
  ])
}

/** CONNACK of MQTT 3.1.1 (section 3.2): return code 0 accepts. */
export const connack = (returnCode = 0): Buffer => Buffer.from([0x20, 2, 0, returnCode])

/** Speaks just enough of both protocols: CONNACK to an MQTT client, `reply` to an HTTP client. */
export function eitherProtocol(reply: Uint8Array): Talk {
  return (socket) => {
    socket.once('data', (bytes) => socket.write(bytes[0] === 0x10 ? connack() : reply))
  }
}

/** Calls `handle` with each whole MQTT packet, however they were cut into segments. */
export function onPackets(socket: net.Socket, handle: (packet: Buffer) => void): void {
  let held = Buffer.alloc(0)
  socket.on('data', (bytes) => {
    held = Buffer.concat([held, bytes])
    for (let size = packetSize(held); size > 0; size = packetSize(held)) {
      handle(held.subarray(0, size))
      held = held.subarray(size)
    }
  })
}

/** Size of the first packet in `bytes`, or 0 while it is incomplete (MQTT 3.1.1 section 2.2.3). */
function packetSize(bytes: Buffer): number {
  let length = 0
  for (let at = 1; at < 5; at++) {
    const digit = bytes[at]
    if (digit === undefined) return 0
    length += (digit & 0x7f) * 128 ** (at - 1)
    if (digit < 0x80) return bytes.length >= at + 1 + length ? at + 1 + length : 0
  }
  return 0
}

/** Speaks as a broker that accepts CONNECT and SUBSCRIBE, and leaves the rest to `further`. */
export function broker(further: (packet: Buffer, socket: net.Socket) => void = () => {}): Talk {
  return (socket) =>
    onPackets(socket, (packet) => {
      if (packet[0] === 0x10) socket.write(connack())
      if (packet[0] === 0x82) socket.write(suback(packet))
      further(packet, socket)
    })
}

/** SUBACK for a SUBSCRIBE packet of under 128 bytes; code 0x80 refuses. */
export const suback = (subscribe: Buffer, code = 1): Buffer =>
  Buffer.from([0x90, 3, subscribe[2] ?? 0, subscribe[3] ?? 0, code])
