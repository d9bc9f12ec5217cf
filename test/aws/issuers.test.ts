/**
 * `certvend-server` with AWS IoT as its issuer, against MiniStack: the built commands, the client library,
 * MQTT with mutual TLS, and the events that AWS sends. `npm run test:aws` starts MiniStack.
 */
import { execFile, spawn } from 'node:child_process'
import { createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import {
  type Credential,
  connect,
  createClaim,
  createCredential,
  createEndpoint,
  createVendingServer,
  ensureCredential,
  openCredentialStore,
  type Session,
} from '@certvend/client'
import { createCertificationRequest } from '@certvend/client/csr'
import {
  createLocalIssuer,
  judgeRequest,
  openDeviceCa,
  openLibsqlRegistry,
  silent,
  systemClock,
} from '@certvend/server'
import {
  createAwsIotIssuer,
  handlePresence,
  handleRegistered,
  openIot,
} from '@certvend/server/aws-iot'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { aws } from '../ministack.ts'
import { temporaryDirectory } from '../temporary.ts'

const { MINISTACK_URL: url = '', MINISTACK_MQTT_PORT: mqttPort = '' } = process.env
const main = fileURLToPath(new URL('./main.js', import.meta.resolve('@certvend/server')))

async function statusOf(certificateId: string): Promise<unknown> {
  const { certificateDescription } = await aws('GET', `/certificates/${certificateId}`)
  return (certificateDescription as { status: string }).status
}

/** A server's directory, and the command in it. */
function makeServer() {
  const directory = temporaryDirectory()
  const anchorsPath = path.join(directory, 'anchors.pem')
  fs.writeFileSync(anchorsPath, anchors)
  const options = { cwd: directory, env: { ...process.env, AWS_ENDPOINT_URL: url } }
  const run = (line: string) =>
    new Promise<{ code: number; out: string; err: string }>((resolve) => {
      execFile(process.execPath, [main, ...line.split(' ')], options, (error, out, err) =>
        resolve({ code: error ? Number(error.code) : 0, out, err }),
      )
    })
  /** @returns a vending server to enroll at */
  const serve = async (issuer: string) => {
    const words = `serve --issuer ${issuer} --port 0 --listen 127.0.0.1 --mqtt-host localhost --mqtt-port ${mqttPort} --mqtt-anchors anchors.pem`
    const child = spawn(process.execPath, [main, ...words.split(' ')], options)
    onTestFinished(async () => {
      child.kill()
      await new Promise((resolve) => child.once('exit', resolve))
    })
    const lines = createInterface({ input: child.stdout })
    const [line] = (await Promise.race([
      new Promise((resolve) => lines.once('line', (text) => resolve([text]))),
      new Promise((_, reject) => child.once('exit', () => reject(new Error('serve ended')))),
    ])) as [string]
    const pin = fs.readFileSync(path.join(directory, 'certvend-data', 'tls', 'pin.pem'), 'utf8')
    return createVendingServer({ url: JSON.parse(line).url, pins: pin })
  }
  const enroll = async (server: Awaited<ReturnType<typeof serve>>, serial: string, token: string) =>
    ensureCredential(
      await openCredentialStore(temporaryDirectory()),
      server,
      createClaim({ deviceSerial: serial, token }),
    )
  const registry = () => {
    const opened = openLibsqlRegistry(path.join(directory, 'certvend-data', 'registry.db'))
    onTestFinished(() => opened.close())
    return opened
  }
  return { directory, run, serve, enroll, registry }
}

let anchors = ''
let cloud: Session

/** A session that hears what AWS tells of. */
async function hear(filter: string): Promise<() => Promise<unknown>> {
  const messages = (await cloud.subscribe(filter))[Symbol.asyncIterator]()
  return async () => JSON.parse(Buffer.from((await messages.next()).value.payload).toString())
}

/** What stands behind AWS's rules: the handlers, with the registry of one server. */
function behind(registry: ReturnType<typeof openLibsqlRegistry>) {
  const iot = openIot({ clock: systemClock, endpointUrl: url, region: 'eu-west-1' })
  onTestFinished(() => iot.close())
  return { registry, issuer: createAwsIotIssuer({ iot }), clock: systemClock, log: silent }
}

const refused = (credential: Credential) =>
  expect(connect(credential)).rejects.toMatchObject({ code: 'ERR_SESSION_REFUSED' })

async function visit(credential: Credential): Promise<void> {
  const session = await connect(credential)
  await session.publish(`certvend/${credential.thingName}/hello`, 'hello')
  await session.close()
}

describe.skipIf(!url)(`AWS IoT as the issuer ${url ? '' : '(npm run test:aws)'}`, () => {
  beforeAll(async () => {
    anchors = await (await fetch(`${url}/_ministack/iot/ca.pem`)).text()
    const made = await aws('POST', '/keys-and-certificate?setAsActive=true')
    const { PrivateKey } = made.keyPair as Record<string, string>
    cloud = await connect(
      createCredential({
        thingName: 'issuers-listener',
        certificateChain: made.certificatePem as string,
        privateKey: PrivateKey as string,
        endpoint: createEndpoint(`localhost:${mqttPort}`, anchors),
      }),
    )
  })
  afterAll(() => cloud?.close())

  it.each([
    ['aws-iot', ''],
    ['aws-iot-own-ca', 'ca register --sni-only'],
    ['aws-iot-own-ca --no-ca-registered', ''],
  ])(
    'serve --issuer %s: online, disabled, enabled, re-armed, retired',
    { timeout: 120_000 },
    async (issuer, first) => {
      const { run, serve, enroll, registry } = makeServer()
      const serial = `issuers-${issuer.length}`
      if (issuer !== 'aws-iot') expect(await run('ca create')).toMatchObject({ code: 0 })
      if (first) expect(await run(first)).toMatchObject({ code: 0 })
      const server = await serve(issuer)
      const token = (await run(`device add ${serial} --attribute site=B`)).out.trim()
      const old = await enroll(server, serial, token)
      const told = await hear(`$aws/events/presence/connected/${serial}`)
      const tools = behind(registry())
      await visit(old)
      expect(await handlePresence(await told(), tools)).toBe(true)
      expect(await aws('GET', `/things/${serial}`)).toMatchObject({ attributes: { site: 'B' } })

      expect(
        await run(`device disable ${serial} --issuer aws-iot --aws-region eu-west-1`),
      ).toMatchObject({
        code: 0,
        err: expect.stringContaining('1 withdrawn, 0 in force'),
      })
      expect(await statusOf(old.certificateId)).toBe('INACTIVE')
      await refused(old)
      await run(`device enable ${serial} --issuer aws-iot`)
      await visit(old)
      expect(await handlePresence(await told(), tools)).toBe(false)

      const next = await enroll(server, serial, (await run(`device rearm ${serial}`)).out.trim())
      expect([await statusOf(old.certificateId), await statusOf(next.certificateId)]).toEqual([
        'ACTIVE',
        'ACTIVE',
      ])
      await visit(old)
      expect(await handlePresence(await told(), tools)).toBe(false)
      await visit(next)
      expect(await handlePresence(await told(), tools)).toBe(true)
      expect([await statusOf(old.certificateId), await statusOf(next.certificateId)]).toEqual([
        'INACTIVE',
        'ACTIVE',
      ])
      await refused(old)

      const swept = await run('sweep --issuer aws-iot --json')
      expect(swept).toMatchObject({ code: 0 })
      // Younger than an hour: left alone.
      expect(JSON.parse(swept.out)).toMatchObject({ removed: 0, withdrawn: 0, left: 0 })
      await run(`device rearm ${serial} --revoke --issuer aws-iot`)
      expect(await statusOf(next.certificateId)).toBe('REVOKED')
      await refused(next)
    },
  )

  it('just in time: registered by the first connect, activated if recorded, and only then', {
    timeout: 120_000,
  }, async () => {
    const { directory, run, serve, enroll, registry } = makeServer()
    await run('ca create')
    const registered = await run('ca register --auto-registration --json')
    expect(registered).toMatchObject({
      code: 0,
      err: expect.stringContaining('register themselves'),
    })
    const { caCertificateId } = JSON.parse(registered.out)
    expect(JSON.parse((await run('ca register --auto-registration --json')).out).outcome).toBe(
      'unchanged',
    )
    const server = await serve('aws-iot-jitr')
    const token = (await run('device add issuers-jitr')).out.trim()
    const told = await hear(`$aws/events/certificates/registered/${caCertificateId}`)
    const connected = await hear('$aws/events/presence/connected/issuers-jitr')
    const credential = await enroll(server, 'issuers-jitr', token)
    await expect(statusOf(credential.certificateId)).rejects.toThrow('404')
    const tools = behind(registry())

    await refused(credential)
    const event = await told()
    expect(event).toMatchObject({
      certificateId: credential.certificateId,
      certificateStatus: 'PENDING_ACTIVATION',
    })
    await refused(credential)
    expect(await statusOf(credential.certificateId)).toBe('PENDING_ACTIVATION')
    expect(await handleRegistered(event, tools)).toBe('activated')
    expect(await handleRegistered(await told(), tools)).toBe('activated')
    await visit(credential)
    expect(await handlePresence(await connected(), tools)).toBe(true)

    // The same CA signed it, and nobody recorded it.
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const key = {
      publicKey: createPublicKey(privateKey),
      sign: async (data: Uint8Array) => sign('sha256', data, privateKey),
    }
    const judged = judgeRequest(
      await createCertificationRequest(key, 'issuers-jitr'),
      'issuers-jitr',
    )
    if (!judged.ok) throw new Error(judged.reason)
    const ca = await openDeviceCa(path.join(directory, 'certvend-data'), systemClock)
    const device = await tools.registry.find('issuers-jitr')
    const stray = await createLocalIssuer(ca).issue(
      judged.request,
      device!,
      {
        deviceSerial: 'issuers-jitr',
        claimNumber: 1,
        publicKey: judged.request.publicKey,
        certificateSerial: '1234',
        reservedAt: new Date(),
      },
      { signal: AbortSignal.timeout(30_000) },
    )
    const intruder = createCredential({
      thingName: 'issuers-jitr',
      certificateChain: [...stray.certificateChain, ca.certificate].join(''),
      privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
      endpoint: credential.endpoint,
    })
    for (const attempt of [1, 2]) {
      await refused(intruder)
      expect([attempt, await handleRegistered(await told(), tools)]).toEqual([attempt, 'unknown'])
    }
    await refused(intruder)
    expect(await statusOf(stray.certificateId)).toBe('PENDING_ACTIVATION')
    const trail = await tools.registry.events({ deviceSerial: `ca/${caCertificateId}`, limit: 10 })
    expect(trail.map(({ name, certificateId }) => [name, certificateId])).toEqual([
      ['certificate-unknown', stray.certificateId],
    ])
    // Revoked: told again when it comes back, and not let in.
    await run('device rearm issuers-jitr --revoke --issuer aws-iot')
    expect(await handleRegistered(event, tools)).toBe('refused')
    expect(await statusOf(credential.certificateId)).toBe('REVOKED')
    await refused(credential)
  })

  it.each(['ecc', 'rsa', 'secret'])(
    'the CA may be kept in AWS: %s',
    { timeout: 60_000 },
    async (kind) => {
      const { run, serve, enroll } = makeServer()
      const service = async (target: string, body: object) => {
        const reply = await fetch(url, {
          method: 'POST',
          headers: {
            'x-amz-target': target,
            'content-type': 'application/x-amz-json-1.1',
            authorization: `AWS4-HMAC-SHA256 Credential=test/20260101/eu-west-1/${kind === 'secret' ? 'secretsmanager' : 'kms'}/aws4_request, SignedHeaders=host, Signature=0`,
          },
          body: JSON.stringify(body),
        })
        return JSON.parse(await reply.text())
      }
      const arn =
        kind === 'secret'
          ? (await service('secretsmanager.CreateSecret', { Name: 'issuers-ca' })).ARN
          : (
              await service('TrentService.CreateKey', {
                KeyUsage: 'SIGN_VERIFY',
                KeySpec: kind === 'ecc' ? 'ECC_NIST_P256' : 'RSA_2048',
              })
            ).KeyMetadata.Arn
      const where =
        kind === 'secret' ? `--ca-key ${arn}` : `--ca-key ${arn} --ca-certificate ca.pem`
      expect(await run(`ca create ${where}`)).toMatchObject({ code: 0 })
      // A CA is not replaced.
      expect(await run(`ca create ${where}`)).toMatchObject({ code: 3 })
      expect(await run(`ca register ${where}`)).toMatchObject({ code: 0 })
      const server = await serve(`aws-iot-own-ca ${where}`)
      const serial = `issuers-${kind}`
      await visit(await enroll(server, serial, (await run(`device add ${serial}`)).out.trim()))
    },
  )
})
