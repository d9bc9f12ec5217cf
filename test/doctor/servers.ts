/** Servers that a fault puts in the place of the honest ones. */
import { spawn } from 'node:child_process'
import net, { type AddressInfo } from 'node:net'
import tls from 'node:tls'
import type { ServerIdentity } from '@certvend/server/lab'
import { onTestFinished } from 'vitest'
import type { Scene } from './scene.ts'

export const aYear = (year: number): { notBefore: Date; notAfter: Date } => ({
  notBefore: new Date(`${year}-01-01T00:00:00Z`),
  notAfter: new Date(`${year + 1}-01-01T00:00:00Z`),
})

type Talk = (socket: net.Socket) => void

/** Listens until the test ends, with TLS where there is an identity; the port. */
export async function listen(
  talk: Talk,
  identity?: ServerIdentity,
  address = '127.0.0.1',
): Promise<number> {
  const sockets = new Set<net.Socket>()
  const quiet: Talk = (socket) => {
    sockets.add(socket.on('error', () => {}))
    talk(socket)
  }
  const server = identity
    ? tls.createServer(
        {
          cert: identity.certificateChain,
          key: identity.privateKey.export({ type: 'pkcs8', format: 'pem' }),
          requestCert: true,
          rejectUnauthorized: false, // the broker judges at CONNECT, as IoT Core does
        },
        quiet,
      )
    : net.createServer(quiet)
  server.on('tlsClientError', () => {})
  await new Promise<void>((resolve) => server.listen(0, address, resolve))
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
  })
  return (server.address() as AddressInfo).port
}

/** A port on which nothing listens. */
export async function deafPort(): Promise<number> {
  const server = net.createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return port
}

/** As IoT Core where the policy forbids a topic: CONNACK, and closed with the first PUBLISH. */
export const closesOnPublish: Talk = (socket) => {
  socket.on('data', (bytes) => {
    const kind = (bytes[0] ?? 0) >> 4
    if (kind === 1) socket.write(Buffer.from([0x20, 2, 0, 0]))
    if (kind === 3) socket.destroy()
  })
}

/** As a portal that wants a sign-in. */
export const redirects: Talk = (socket) => {
  socket.once('data', () =>
    socket.end(
      'HTTP/1.1 302 Found\r\nLocation: http://login.hotel.example/\r\nContent-Length: 0\r\n\r\n',
    ),
  )
}

/** A real broker, without TLS. */
export async function plainMosquitto(): Promise<number> {
  const port = await deafPort()
  const broker = spawn('/usr/sbin/mosquitto', ['-p', String(port)])
  onTestFinished(() => void broker.kill('SIGKILL'))
  let said = ''
  await new Promise<void>((resolve, reject) => {
    broker.once('exit', () => reject(new Error(said)))
    for (const stream of [broker.stdout, broker.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        said += text
        if (/version \S+ running/.test(said)) resolve()
      })
  })
  return port
}

export const brokerIdentity = (scene: Scene): Promise<ServerIdentity> =>
  scene.lab.pki.issueServer({ issuer: scene.lab.pki.brokerCa, sends: [] })
