/** Load from outside: every request over a TLS connection of its own, fully shaken hands. */
import { generateKeyPairSync, sign } from 'node:crypto'
import { type RequestOptions, request } from 'node:https'
import { createCertificationRequest } from '@certvend/client/csr'

export interface Asked {
  readonly deviceSerial: string
  readonly token: string
  readonly csr: string
}

/** A certification request by a new P-256 key, PEM. */
export function makeRequest(deviceSerial: string): Promise<string> {
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const key = {
    publicKey,
    sign: async (data: Buffer, digest: string) => sign(digest, data, privateKey),
  }
  return createCertificationRequest(key as never, deviceSerial)
}

/** A device that has its key, and whose request is ready. */
export const makeAsked = async (deviceSerial: string, token: string): Promise<Asked> => ({
  deviceSerial,
  token,
  csr: await makeRequest(deviceSerial),
})

export interface Answer {
  readonly status: number
  readonly retryAfter?: string
}

export function ask(
  port: number,
  pin: string,
  { deviceSerial, token, csr }: Asked,
): Promise<Answer> {
  const body = JSON.stringify({ deviceSerial, csr })
  return new Promise((resolve, reject) => {
    const trust = {
      ca: pin,
      allowPartialTrustChain: true,
      rejectUnauthorized: true,
      maxCachedSessions: 0,
    }
    const outgoing = request(
      {
        ...trust,
        host: 'localhost',
        port,
        path: '/v1/enroll',
        method: 'POST',
        agent: false,
        headers: {
          'content-type': 'application/json',
          'content-length': Buffer.byteLength(body),
          authorization: `Bearer ${token}`,
        },
      } satisfies RequestOptions,
      (incoming) => {
        incoming.resume().once('end', () => {
          const retryAfter = incoming.headers['retry-after']
          resolve({ status: incoming.statusCode ?? 0, ...(retryAfter && { retryAfter }) })
        })
      },
    )
    outgoing.once('error', reject)
    outgoing.end(body)
  })
}

export interface Load {
  readonly perSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
}

/** Asks for all of them, `lanes` at a time. @throws Error if one is refused */
export async function load(
  port: number,
  pin: string,
  asked: readonly Asked[],
  lanes: number,
): Promise<Load> {
  const times: number[] = []
  const queue = asked.values()
  const began = performance.now()
  const lane = async () => {
    for (const one of queue) {
      const from = performance.now()
      const { status } = await ask(port, pin, one)
      if (status !== 200) throw new Error(`status ${status}`)
      times.push(performance.now() - from)
    }
  }
  await Promise.all(Array.from({ length: lanes }, lane))
  const seconds = (performance.now() - began) / 1000
  const sorted = times.toSorted((one, other) => one - other)
  const at = (part: number) =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))]!
  return { perSecond: asked.length / seconds, p50Ms: at(0.5), p99Ms: at(0.99) }
}
