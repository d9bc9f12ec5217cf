/**
 * A vending machine in a process of its own, or a bare TLS server that signs once per request, for
 * the load from another. Reads words on its input, answers each with one line of JSON:
 * `usage` says what it used so far, `end` ends it.
 */
import { createHash, createPrivateKey, sign } from 'node:crypto'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { createInterface } from 'node:readline'
import {
  createHandler,
  createLocalIssuer,
  createRateGate,
  type Handler,
  type Issuer,
  judgeRequest,
  listen,
  openDeviceCa,
  openLibsqlRegistry,
  openServerChain,
  type Registry,
  silent,
  systemClock,
} from '@certvend/server'

const { kind, directory, perSecond } = JSON.parse(process.argv[2]!) as {
  readonly kind: 'ours' | 'floor'
  readonly directory: string
  /** Certificates per second, as AWS would allow; absent: as many as there can be. */
  readonly perSecond?: number
}

/** Time spent in a part, in milliseconds. */
const spent: Record<string, number> = { registry: 0, issuer: 0 }
const timed =
  <A extends readonly unknown[], T>(part: string, work: (...given: A) => Promise<T>) =>
  async (...given: A): Promise<T> => {
    const began = performance.now()
    try {
      return await work(...given)
    } finally {
      spent[part] = (spent[part] ?? 0) + performance.now() - began
    }
  }

async function startOurs(): Promise<number> {
  const chain = await openServerChain(`${directory}/tls`, [], systemClock)
  const registry = openLibsqlRegistry(`${directory}/registry.db`)
  const local = createLocalIssuer(await openDeviceCa(directory, systemClock))
  const gate = perSecond && createRateGate({ rates: { issue: perSecond } })
  const issuer: Issuer = {
    ...local,
    issue: timed('issuer', local.issue),
    ...(gate && { admit: (key: string, now: Date) => gate.ask(key, { issue: 1 }, now) }),
  }
  const watched: Registry = {
    ...registry,
    find: timed('registry', registry.find),
    reserve: timed('registry', registry.reserve),
    record: timed('registry', registry.record),
  }
  const endpoint = { host: 'mqtt.example', port: 8883, trustAnchors: [chain.root.certificate] }
  const options = { registry: watched, issuer, clock: systemClock, log: silent, endpoint }
  const handler: Handler = createHandler(options)
  return (await listen(handler, { tls: chain, port: 0, address: '127.0.0.1' })).port
}

async function startFloor(): Promise<number> {
  const { cert, key } = await openServerChain(`${directory}/tls`, [], systemClock)
  const signingKey = createPrivateKey(key)
  const server = createServer({ cert, key, noDelay: true }, (incoming, outgoing) => {
    const hash = createHash('sha256')
    incoming.on('data', (chunk: Buffer) => hash.update(chunk))
    incoming.on('end', () => {
      outgoing.end(sign('sha256', hash.digest(), signingKey).toString('hex'))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return (server.address() as AddressInfo).port
}

/** What judging a certification request costs, in milliseconds each; measured where it is done. */
function judging(csr: string): number {
  const rounds = 300
  for (let count = 0; count < 50; count += 1) judgeRequest(csr, 'SN')
  const began = performance.now()
  for (let count = 0; count < rounds; count += 1) judgeRequest(csr, 'SN')
  return (performance.now() - began) / rounds
}

const tell = (document: object) => void process.stdout.write(`${JSON.stringify(document)}\n`)

tell({ port: await (kind === 'ours' ? startOurs() : startFloor()) })
for await (const line of createInterface({ input: process.stdin })) {
  if (line === 'end') process.exit(0)
  const { user, system } = process.cpuUsage()
  const csr = line.startsWith('judge ') ? (JSON.parse(line.slice(6)) as string) : undefined
  tell({
    cpuMs: (user + system) / 1000,
    rssMiB: process.memoryUsage().rss / 2 ** 20,
    spent,
    ...(csr !== undefined && { judgeMs: judging(csr) }),
  })
}
