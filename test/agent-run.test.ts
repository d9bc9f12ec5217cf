/** `certvend run` against the lab: the built daemon, real TLS, a real broker, real signals. */
import fs from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import { connect, openCredentialStore } from '@certvend/client'
import { type Lab, type LabOptions, startLab } from '@certvend/server/lab'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type AgentProcess, type DeviceFolder, deviceFolder, start } from './agent-process.ts'
import { connack, listen, type Talk } from './hostile-server.ts'
import { type CertificateOptions, certificateIdOf, certify } from './pki.ts'

async function openLab(options: LabOptions = {}): Promise<Lab> {
  const lab = await startLab(options)
  onTestFinished(() => lab.close())
  return lab
}

const run = (device: DeviceFolder, more: readonly string[] = []): AgentProcess =>
  start(['run', ...device.flags(), ...more], { cwd: device.path })

/** With nothing but the state directory. */
const runAgain = (device: DeviceFolder, more: readonly string[] = []): AgentProcess =>
  start(['run', '--state-dir', device.state, ...more], { cwd: device.path })

const names = ({ events }: AgentProcess): string[] => events.map(({ event }) => event)

/** What the broker got on a device's status topic. */
const statuses = (lab: Lab, { deviceSerial }: DeviceFolder): unknown[] =>
  lab.mqtt.received
    .filter(({ topic }) => topic === `certvend/${deviceSerial}/status`)
    .map(({ payload }) => JSON.parse(payload.toString()))

describe('the first boot', () => {
  it('enrolls, connects, announces itself, and leaves in order on SIGTERM', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const agent = run(device)
    const { topic } = await agent.until('publish.acknowledged')
    expect(topic).toBe(`certvend/${device.deviceSerial}/status`)
    expect((await agent.terminate()).code).toBe(0)
    expect(names(agent)).toEqual([
      'agent.start',
      'enroll.key',
      'enroll.request',
      'enroll.done',
      'session.open',
      'publish.acknowledged',
      'session.closed',
      'agent.stop',
    ])
    const thingName = device.deviceSerial
    expect(statuses(lab, device)).toMatchObject([
      { online: true, thingName },
      { online: false, thingName },
    ])
    expect(agent.stderr).toBe('')
  })

  it('ends by itself with --once, after the first acknowledged publish', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const agent = run(device, ['--once'])
    expect(await agent.exited).toEqual({ code: 0, signal: null })
    expect(statuses(lab, device)).toMatchObject([{ online: true }, { online: false }])
  })
})

describe('a boot after SIGKILL', () => {
  it('asks nobody, needs only the state directory, and connects with the same certificate', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const first = run(device)
    const { certificateId } = await first.until('enroll.done')
    await first.until('publish.acknowledged')
    first.child.kill('SIGKILL')
    await first.exited
    for (const name of ['token', 'pin.pem']) fs.rmSync(device.at(name))
    const second = runAgain(device)
    await second.until('publish.acknowledged')
    expect(await second.until('credential.found')).toMatchObject({ certificateId })
    expect(names(second).filter((name) => name.startsWith('enroll.'))).toEqual([])
    expect(lab.requests).toHaveLength(1)
    expect((await second.terminate()).code).toBe(0)
  })

  it('finds that the broker has told of its vanishing', async () => {
    const lab = await openLab()
    const [device, watcher] = [await deviceFolder(lab), await deviceFolder(lab)]
    await start(['enroll', ...watcher.flags()], { cwd: watcher.path }).exited
    const credential = (await openCredentialStore(watcher.state)).current()
    const session = await connect(credential as NonNullable<typeof credential>)
    const messages = await session.subscribe(`certvend/${device.deviceSerial}/status`)
    const agent = run(device)
    await agent.until('publish.acknowledged')
    agent.child.kill('SIGKILL')
    const seen: boolean[] = []
    for await (const { payload } of messages) {
      seen.push(JSON.parse(Buffer.from(payload).toString()).online)
      if (seen.length === 2) break
    }
    expect(seen).toEqual([true, false])
    await session.close()
  })
})

describe('beside a running agent', () => {
  it('a second one on the same state directory exits 3 and disturbs nothing', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const first = run(device)
    await first.until('publish.acknowledged')
    const second = run(device)
    expect((await second.exited).code).toBe(3)
    expect(second.stderr).toMatch(
      /^certvend: another process holds .*\/lock \(ERR_STORE_LOCKED\)\nhint: /,
    )
    expect(lab.mqtt.opened).toBe(1)
    expect((await first.terminate()).code).toBe(0)
  })

  it('status and enroll read what is there, without its lock', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const agent = run(device)
    await agent.until('publish.acknowledged')
    const status = start(['status', '--json', '--state-dir', device.state], { cwd: device.path })
    expect((await status.exited).code).toBe(0)
    expect(JSON.parse(status.stdout)).toMatchObject({
      state: 'valid',
      credential: { deviceSerial: device.deviceSerial },
      problems: [],
    })
    const enroll = start(['enroll', ...device.flags()], { cwd: device.path })
    expect((await enroll.exited).code).toBe(0)
    expect(lab.requests).toHaveLength(1)
  })
})

describe('nothing remote ends it', () => {
  it('a refused claim is logged with its hint and asked again slowly', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab, { deviceSerial: 'GW-unknown', token: 'not-our-token' })
    const agent = run(device)
    const retry = await agent.until('enroll.retry')
    expect(retry).toMatchObject({ code: 'ERR_CLAIM_REFUSED', remedy: 'operator' })
    expect(retry.waitMs).toBeGreaterThanOrEqual(300_000)
    expect((await agent.terminate()).code).toBe(0)
  })

  it('a server under the sibling of the pin is told from one that is merely away', async () => {
    const lab = await openLab()
    const { vendingUrl } = await lab.serveUnderSibling()
    const device = await deviceFolder(lab)
    const agent = start(['run', ...device.flags({ server: vendingUrl })], { cwd: device.path })
    expect(await agent.until('enroll.retry')).toMatchObject({ code: 'ERR_SERVER_UNTRUSTED' })
    expect(lab.requests).toEqual([])
    expect((await agent.terminate()).code).toBe(0)
  })

  it('a lost session is logged with the time of the next attempt', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const agent = run(device)
    await agent.until('publish.acknowledged')
    lab.mqtt.dropConnections()
    const lost = await agent.until('session.lost')
    expect(lost).toMatchObject({ code: 'ERR_SESSION_LOST', remedy: 'retry' })
    expect(lost.waitMs).toBeLessThanOrEqual(15_000)
    expect((await agent.terminate()).code).toBe(0)
  })
})

/** Puts a credential for `endpoint` into the device's store, as if it had enrolled. */
async function seed(
  device: DeviceFolder,
  endpoint: { host: string; port: number; trustAnchors: readonly string[] },
  validity: Pick<CertificateOptions, 'notBefore' | 'notAfter'> = {},
): Promise<void> {
  const store = await openCredentialStore(device.state)
  const { privateKey } = store.begin()
  const spki = privateKey.publicKey.export({ type: 'spki', format: 'der' })
  const { certificate } = await certify(device.deviceSerial, {
    publicKey: new Uint8Array(spki),
    ...validity,
  })
  store.issue({
    deviceSerial: device.deviceSerial,
    thingName: device.deviceSerial,
    certificateId: certificateIdOf(certificate),
    certificateChain: certificate,
    endpoint: { ...endpoint, trustAnchors: [...endpoint.trustAnchors] },
    keyOrigin: 'device',
    issuedAt: new Date(),
  })
  store.close()
}

/** A store seeded for a broker that does with each connection what `talk` says. */
async function withBroker(talk: Talk): Promise<DeviceFolder> {
  const device = await deviceFolder(await openLab())
  const ca = await certify('Broker CA', { ca: true })
  const peer = await listen(await certify('broker', { issuer: ca, dns: ['localhost'] }), [], talk)
  onTestFinished(() => peer.close())
  await seed(device, { host: 'localhost', port: peer.port, trustAnchors: [ca.certificate] })
  return device
}

describe('SIGTERM ends it', () => {
  const endsCleanly = async (agent: AgentProcess): Promise<void> => {
    expect((await agent.terminate()).code).toBe(0)
    expect(names(agent).at(-1)).toBe('agent.stop')
    expect(agent.stderr).toBe('')
  }

  it('while the vending machine thinks', async () => {
    let arrive = (): void => {}
    const arrived = new Promise<void>((resolve) => {
      arrive = resolve
    })
    let release = (): void => {}
    const lab = await openLab({
      async intercept(_, answer) {
        arrive()
        await new Promise<void>((resolve) => {
          release = resolve
        })
        return answer()
      },
    })
    onTestFinished(() => release())
    const agent = run(await deviceFolder(lab))
    await arrived
    await endsCleanly(agent)
  })

  it('while a connection to the vending machine is being opened', async () => {
    const silent = net.createServer()
    const opened = new Promise<void>((resolve) => silent.once('connection', () => resolve()))
    await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void silent.close())
    const device = await deviceFolder(await openLab())
    const { port } = silent.address() as AddressInfo
    const agent = start(['run', ...device.flags({ server: `https://127.0.0.1:${port}` })], {
      cwd: device.path,
    })
    await opened
    await endsCleanly(agent)
  })

  it('while the broker does not answer CONNECT', async () => {
    let arrive = (): void => {}
    const arrived = new Promise<void>((resolve) => {
      arrive = resolve
    })
    const device = await withBroker((socket) => socket.once('data', () => arrive()))
    const agent = runAgain(device)
    await arrived
    await endsCleanly(agent)
  })

  it('while the broker acknowledges nothing', async () => {
    const device = await withBroker((socket) => {
      socket.once('data', () => socket.write(connack()))
    })
    const agent = runAgain(device)
    await agent.until('session.open')
    await endsCleanly(agent)
  })

  it('while it waits to connect again', async () => {
    const device = await withBroker((socket) => socket.destroy())
    const agent = runAgain(device)
    await agent.until('session.retry')
    await endsCleanly(agent)
  })
})

describe('what works is kept', () => {
  it('a store that cannot be written to does not take a device offline', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    await start(['enroll', ...device.flags()], { cwd: device.path }).exited
    fs.rmSync(device.at('state', 'lock'))
    fs.mkdirSync(device.at('state', 'lock')) // cannot be opened for writing, not even by root
    const agent = runAgain(device)
    expect(await agent.until('store.unwritable')).toMatchObject({ code: 'ERR_STORE_UNWRITABLE' })
    await agent.until('publish.acknowledged')
    expect((await agent.terminate()).code).toBe(0)
  })

  it('an expired credential stays where it is, and status says so', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const { host, port, trustAnchors } = lab.mqtt
    await seed(device, { host, port, trustAnchors }, { notAfter: new Date('2021-01-01T00:00:00Z') })
    const agent = runAgain(device)
    expect(await agent.until('session.retry')).toMatchObject({ code: 'ERR_CREDENTIAL_EXPIRED' })
    const status = start(['status', '--json', '--state-dir', device.state], { cwd: device.path })
    expect((await status.exited).code).toBe(0)
    expect(JSON.parse(status.stdout)).toMatchObject({
      state: 'expired',
      problems: [{ code: 'ERR_CREDENTIAL_EXPIRED' }],
    })
    expect((await agent.terminate()).code).toBe(0)
    expect(lab.requests).toEqual([])
    expect(fs.existsSync(`${device.state}/current/private-key.pem`)).toBe(true)
  })
})

describe('secrets', () => {
  it('appear in no log, error, status, argv or process title, however written', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const agent = run(device)
    await agent.until('publish.acknowledged')
    const { pid } = agent.child
    const seen = ['cmdline', 'comm', 'environ'].map((name) =>
      fs.readFileSync(`/proc/${pid}/${name}`, 'utf8'),
    )
    const status = start(['status', '--state-dir', device.state], { cwd: device.path })
    await status.exited
    await agent.terminate()
    seen.push(agent.stdout, agent.stderr, status.stdout, status.stderr)
    const pem = fs.readFileSync(`${device.state}/current/private-key.pem`, 'utf8')
    const everything = seen.join('\n')
    for (const secret of [device.token, ...keyForms(pem)])
      for (const written of spellings(secret)) expect(everything).not.toContain(written)
  })
})

/** The key's PEM, its body as one line, and its DER. */
function keyForms(pem: string): string[] {
  const body = pem.replace(/-----[^-]+-----|\s/g, '')
  return [pem.trim(), body, Buffer.from(body, 'base64').toString('latin1')]
}

function spellings(secret: string): string[] {
  const bytes = Buffer.from(secret, 'latin1')
  return [
    secret,
    bytes.toString('base64').replace(/=+$/, ''),
    bytes.toString('base64url'),
    bytes.toString('hex'),
    [...bytes].map((byte) => `%${byte.toString(16).padStart(2, '0')}`).join(''),
    encodeURIComponent(secret),
    JSON.stringify(secret).slice(1, -1),
  ]
}
