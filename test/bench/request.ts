/** One pinned HTTPS request in a process of its own, by the way that the settings name. */
import { setFlagsFromString } from 'node:v8'

const { way, vendingUrl, pins } = JSON.parse(process.argv[2] as string)
const tls = { ca: pins, allowPartialTrustChain: true, rejectUnauthorized: true } as const
const path = '/v1/cacerts'

async function byNode(): Promise<void> {
  const { get } = await import('node:https')
  await new Promise<void>((resolve, reject) => {
    get(vendingUrl + path, { ...tls, agent: false }, (response) => {
      response.resume().once('end', resolve)
    }).once('error', reject)
  })
}

/** undici's Client alone, the lightest of its parts; it has no declarations of its own. */
const clientModule: string = 'undici/lib/dispatcher/client.js'

async function byClient(): Promise<void> {
  const { default: Client }: { default: typeof import('undici').Client } = await import(
    clientModule
  )
  const client = new Client(vendingUrl, { connect: tls })
  await new Promise<void>((resolve, reject) => {
    client.dispatch(
      { path, method: 'GET' },
      {
        onRequestStart: () => {},
        onResponseData: () => {},
        onResponseEnd: () => resolve(),
        onResponseError: (_, e) => reject(e),
      },
    )
  })
  await client.close()
}

async function byUndici(): Promise<void> {
  const { Agent, request } = await import('undici')
  const dispatcher = new Agent({ connect: tls })
  await (await request(vendingUrl + path, { dispatcher })).body.text()
  await dispatcher.close()
}

async function byCertvend(): Promise<void> {
  const { createVendingServer, fetchCaCertificates } = await import('@certvend/client')
  await fetchCaCertificates(createVendingServer({ url: vendingUrl, pins }))
}

if (way === 'client-baseline') setFlagsFromString('--liftoff-only')
const ways: Readonly<Record<string, () => Promise<void>>> = {
  node: byNode,
  client: byClient,
  'client-baseline': byClient,
  undici: byUndici,
  certvend: byCertvend,
}
await ways[way]?.()
console.log('done')
