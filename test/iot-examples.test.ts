/**
 * The examples for IoT Core, each as a process of its own, unchanged, against brokers of ours: the
 * lab's, mosquitto, and a door that behaves like IoT Core's.
 */
import {
  connect,
  createClaim,
  createEndpoint,
  createVendingServer,
  ensureCredential,
  openCredentialStore,
  type Session,
  systemClock,
} from '@certvend/client'
import { type Lab, startLab } from '@certvend/server/lab'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { credentialFor } from './device.ts'
import { filesOf as files, runExample as run } from './example.ts'
import { openResponder } from './fleet-responder.ts'
import { type Door, openDoor } from './iot-door.ts'
import { type Mosquitto, mosquittoMissing, startMosquitto } from './mosquitto.ts'
import { type Certified, certificateIdOf, certify } from './pki.ts'
import { temporaryDirectory } from './temporary.ts'

describe("against the lab's broker", () => {
  let lab: Lab
  beforeAll(async () => {
    lab = await startLab()
  })
  afterAll(() => lab.close())

  async function enrolled(): Promise<{ directory: string; address: string }> {
    const directory = temporaryDirectory()
    const store = await openCredentialStore(directory)
    const server = createVendingServer({ url: lab.vendingUrl, pins: lab.pins })
    await ensureCredential(store, server, createClaim(await lab.addDevice()))
    store.close()
    return { directory, address: `localhost:${lab.mqtt.port}` }
  }

  it('iot-core-mqtt speaks with what is in a credential store', async () => {
    const { directory, address } = await enrolled()
    const { code, out, err } = await run('iot-core-mqtt', address, directory)
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toMatch(/^certvend\/(lab-\d+)\/hello: hello from \1\n$/)
  })

  it('acceptance passes, and skips by name what no lab has', { timeout: 90_000 }, async () => {
    const { directory, address } = await enrolled()
    const { code, out } = await run('acceptance', address, directory)
    expect(out).toContain('6 passed, 0 failed, 0 noted, 2 skipped')
    expect(code).toBe(0)
  })

  it('acceptance fails for a certificate that is not let in, and says so', {
    timeout: 90_000,
  }, async () => {
    const stranger = await certify('nobody', { issuer: await certify('CA', { ca: true }) })
    const at = files({
      'device.pem': stranger.certificate,
      'key.pem': stranger.privateKey,
      'anchors.pem': lab.mqtt.trustAnchors.join(''),
    })
    const address = `localhost:${lab.mqtt.port}`
    const identity = ['nobody', at['device.pem'], at['key.pem']]
    const flags = ['--anchors', at['anchors.pem']]
    const { code, out } = await run('acceptance', ...flags, address, ...identity)
    expect(code).toBe(1)
    expect(out).toMatch(/FAIL {2}a session opens.*\n +.*closed the connection before CONNACK; /)
  })

  it.each(['iot-core-mqtt', 'jitr', 'acceptance', 'fleet-provisioning'])(
    '%s without arguments says how it is called',
    async (example) => {
      const { code, err } = await run(example)
      expect(code).toBe(2)
      expect(err).toContain(`usage: node ${example}.js`)
    },
  )
})

describe.skipIf(mosquittoMissing)(`before mosquitto ${mosquittoMissing ?? ''}`, () => {
  let mqttCa: Certified
  let iotCa: Certified
  let mosquitto: Mosquitto
  let door: Door
  let cloud: Session

  beforeAll(async () => {
    mqttCa = await certify('MQTT CA', { ca: true })
    iotCa = await certify('IoT CA', { ca: true })
    const server = await certify('localhost', { issuer: mqttCa, dns: ['localhost'] })
    mosquitto = await startMosquitto({ server, deviceCa: iotCa })
    const straight = createEndpoint(`localhost:${mosquitto.port}`, mqttCa.certificate)
    cloud = await connect(credentialFor(await certify('cloud', { issuer: iotCa }), straight))
    door = await openDoor({
      server,
      registeredCa: iotCa,
      clock: systemClock,
      behind: {
        port: mosquitto.port,
        anchor: mqttCa,
        identity: await certify('door', { issuer: iotCa }),
      },
      // An activator that does its work between two knocks.
      onRegistered: ({ certificateId }, { certificates }) =>
        void certificates.set(certificateId, { status: 'ACTIVE', policyFrom: systemClock.now() }),
    })
  })
  afterAll(async () => {
    await cloud.close()
    await door.close()
    await mosquitto.close()
  })

  const identityOf = (one: Certified, chain = one.certificate) => {
    const at = files({
      'device.pem': chain,
      'key.pem': one.privateKey,
      'anchors.pem': mqttCa.certificate,
    })
    return {
      anchors: ['--anchors', at['anchors.pem']] as const,
      parts: [at['device.pem'], at['key.pem']] as const,
    }
  }

  it('iot-core-mqtt speaks with a certificate and a key in files', async () => {
    const { anchors, parts } = identityOf(await certify('gateway', { issuer: iotCa }))
    const address = `localhost:${mosquitto.port}`
    const { code, out, err } = await run('iot-core-mqtt', ...anchors, address, 'gateway', ...parts)
    expect({ code, out, err }).toEqual({
      code: 0,
      out: 'certvend/gateway/hello: hello from gateway\n',
      err: '',
    })
  })

  it('jitr is turned away once, registered, and online', async () => {
    const device = await certify('new', { issuer: iotCa })
    const chain = device.certificate + iotCa.certificate
    const { anchors, parts } = identityOf(device, chain)
    const arrived = await cloud.subscribe('certvend/new/hello')
    const address = `localhost:${door.port}`
    const { code, out } = await run('jitr', ...anchors, address, 'new', ...parts)
    expect(code).toBe(0)
    expect(out).toMatch(
      /closed the connection before CONNACK; .* again in \d\.\d s\nnew is online\n$/,
    )
    for await (const { payload } of arrived) {
      expect(Buffer.from(payload).toString()).toBe('registered, active, online')
      break
    }
  })

  it('fleet-provisioning enrolls by claim, then by trusted user, and knows itself the next time', async () => {
    const aws = await openResponder(cloud, 'gateways', iotCa)
    aws.restart(door)
    const claimed = await certify('Claim', { issuer: iotCa })
    door.admit(claimed.certificate)
    const { anchors, parts } = identityOf(claimed)
    const address = `localhost:${door.port}`
    const directory = temporaryDirectory()
    const byClaim = [...anchors, address, directory, 'gateways', 'SN-1', ...parts]
    expect(await run('fleet-provisioning', ...byClaim)).toEqual({
      code: 0,
      out: "configuration { site: 'north' }\nenrolled as gw-SN-1, and online\n",
      err: '',
    })
    expect((await run('fleet-provisioning', ...byClaim)).out).toBe('known as gw-SN-1, and online\n')
    const json = JSON.stringify({
      certificateId: certificateIdOf(claimed.certificate),
      certificatePem: claimed.certificate,
      keyPair: { PrivateKey: claimed.privateKey },
      expiration: Date.now() / 1000 + 300,
    })
    const { 'claim.json': file } = files({ 'claim.json': json })
    const other = temporaryDirectory()
    const byUser = [...anchors, address, other, 'gateways', 'SN-2', file]
    expect((await run('fleet-provisioning', ...byUser)).out).toContain('enrolled as gw-SN-2')
  })
})
