/**
 * The same job as most would write it, with mqtt and undici by hand: nothing is synced, judged or
 * repeated. Only the certification request is made by Certvend's code, as Node has none.
 */
import { createPrivateKey, createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { createCertificationRequest } from '@certvend/client/csr'
import { connectAsync } from 'mqtt'
import { Agent, request } from 'undici'

const { vendingUrl, pins, deviceSerial, token, directory } = JSON.parse(process.argv[2] as string)
const keyFile = path.join(directory, 'key.pem')
const replyFile = path.join(directory, 'reply.json')

async function enroll(): Promise<void> {
  const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const csr = await createCertificationRequest(
    {
      publicKey: createPublicKey(privateKey),
      sign: async (data, digest) => sign(digest, data, privateKey),
    },
    deviceSerial,
  )
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  writeFileSync(keyFile, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
  const dispatcher = new Agent({
    connect: { ca: pins, allowPartialTrustChain: true, rejectUnauthorized: true },
  })
  const { statusCode, body } = await request(`${vendingUrl}/v1/enroll`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json' },
    body: JSON.stringify({ deviceSerial, csr }),
    dispatcher,
  })
  const reply = await body.text()
  if (statusCode !== 200) throw new Error(`${statusCode} ${reply}`)
  writeFileSync(replyFile, reply)
  await dispatcher.close()
}

if (!existsSync(replyFile)) await enroll()
const { endpoint, certificateChain, thingName } = JSON.parse(readFileSync(replyFile, 'utf8'))
const client = await connectAsync({
  protocol: 'mqtts',
  host: endpoint.host,
  port: endpoint.port,
  ca: endpoint.trustAnchors,
  cert: certificateChain,
  key: createPrivateKey(readFileSync(keyFile)).export({ type: 'pkcs8', format: 'pem' }).toString(),
  clientId: thingName,
})
await client.publishAsync(`boot/${thingName}`, 'up', { qos: 1 })
console.log('done')
await client.endAsync()
