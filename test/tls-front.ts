/**
 * TLS in front of an emulator that has none: stands for API Gateway's own, with a throwaway PKI.
 * Every request goes on unchanged, under the name of the API that it is for.
 */
import http from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { certify } from './pki.ts'

export interface TlsFront {
  readonly url: string
  /** The CA that vouches for it, PEM. */
  readonly pin: string
  /** Method and target of each request that came through, in order. */
  readonly requests: readonly string[]
  close(): Promise<void>
}

/** @param host name of the API, as `Host` brings it to the emulator at `behind` */
export async function openTlsFront(behind: URL, host: string): Promise<TlsFront> {
  const ca = await certify('front CA', { ca: true })
  const server = await certify('localhost', { issuer: ca, dns: ['localhost'] })
  const requests: string[] = []
  const front = https.createServer(
    { cert: server.certificate, key: server.privateKey },
    (incoming, outgoing) => {
      requests.push(`${incoming.method} ${incoming.url}`)
      const onward = http.request(
        {
          host: behind.hostname,
          port: behind.port,
          method: incoming.method,
          path: incoming.url,
          headers: { ...incoming.headers, host },
        },
        (answer) => {
          outgoing.writeHead(answer.statusCode ?? 502, answer.headers)
          answer.pipe(outgoing)
        },
      )
      onward.once('error', () => outgoing.destroy())
      incoming.pipe(onward)
    },
  )
  await new Promise<void>((resolve) => front.listen(0, '127.0.0.1', resolve))
  return {
    url: `https://localhost:${(front.address() as AddressInfo).port}`,
    pin: ca.certificate,
    requests,
    close: () =>
      new Promise((resolve) => {
        front.close(() => resolve())
        front.closeAllConnections()
      }),
  }
}
