/**
 * Fleet Provisioning by claim and by trusted user, over a real mosquitto. What AWS does is played by
 * a responder of ours, a session like any other that answers on the topics of the API, and by a door
 * in front of mosquitto that closes before CONNACK for certificates which are not ACTIVE.
 */
import {
  type CertvendError,
  type CredentialStore,
  connect,
  createEndpoint,
  openCredentialStore,
  type Session,
  systemClock,
} from '@certvend/client'
import {
  createFleetClaim,
  createProvisioningTemplate,
  enrollByTemplate,
  ensureCredentialByTemplate,
  type FleetClaim,
  type ProvisioningTemplate,
  readProvisioningClaim,
} from '@certvend/client/fleet-provisioning'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { credentialFor } from './device.ts'
import { type Operation, openResponder, type Responder, tokenRefusal } from './fleet-responder.ts'
import { type Door, openDoor } from './iot-door.ts'
import { type Mosquitto, mosquittoMissing, startMosquitto } from './mosquitto.ts'
import { type Certified, certificateIdOf, certify, publicKeyOf } from './pki.ts'
import { allBytes, temporaryDirectory } from './temporary.ts'

let mqttCa: Certified
let server: Certified
let iotCa: Certified
let claimed: Certified
let mosquitto: Mosquitto
let door: Door
let cloud: Session
let aws: Responder
const mosquittoTest = describe.skipIf(mosquittoMissing)

beforeAll(async () => {
  if (mosquittoMissing) return
  mqttCa = await certify('MQTT CA', { ca: true })
  server = await certify('localhost', { issuer: mqttCa, dns: ['localhost'] })
  iotCa = await certify('IoT CA', { ca: true })
  claimed = await certify('Claim', { issuer: iotCa })
  mosquitto = await startMosquitto({ server, deviceCa: iotCa })
  const straight = createEndpoint(`localhost:${mosquitto.port}`, mqttCa.certificate)
  cloud = await connect(credentialFor(await certify('cloud', { issuer: iotCa }), straight))
  aws = await openResponder(cloud, 'gateways', iotCa)
})
afterAll(async () => {
  await cloud?.close()
  await mosquitto?.close()
})
beforeEach(async () => {
  if (mosquittoMissing) return
  door = await openDoor({
    server,
    registeredCa: await certify('Nobody', { ca: true }),
    clock: systemClock,
    behind: {
      port: mosquitto.port,
      anchor: mqttCa,
      identity: await certify('door', { issuer: iotCa }),
    },
  })
  door.admit(claimed.certificate)
  aws.restart(door)
})
afterEach(() => door?.close())

const claim = (more: { expiresAt?: Date } = {}): FleetClaim =>
  createFleetClaim({
    deviceSerial: 'SN-1',
    certificateChain: claimed.certificate,
    privateKey: claimed.privateKey,
    ...more,
  })
const template = (more: Partial<ProvisioningTemplate> = {}): ProvisioningTemplate =>
  createProvisioningTemplate({
    name: 'gateways',
    endpoint: createEndpoint(`localhost:${door.port}`, mqttCa.certificate),
    ...more,
  })
const open = (directory = temporaryDirectory()): Promise<CredentialStore> =>
  openCredentialStore(directory)
const quick = { backoff: { baseMs: 1, capMs: 20 } } as const
const hasty = { ...quick, answerMs: 1500 } as const // where an answer stays away

const publicKey = async (csr: unknown): Promise<string> =>
  Buffer.from(await publicKeyOf(csr as string)).toString('base64')
const operations = (): Operation[] => aws.asked.map(({ operation }) => operation)
const failureOf = (attempt: Promise<unknown>): Promise<CertvendError> =>
  attempt.then(
    () => expect.unreachable('it was expected to fail'),
    (error) => error,
  )

async function publishes(store: CredentialStore): Promise<void> {
  const credential = store.current()
  if (!credential) return expect.unreachable('nothing is stored')
  const arrived = await cloud.subscribe(`${credential.thingName}/up`)
  const session = await connect(credential)
  await session.publish(`${credential.thingName}/up`, 'hello')
  for await (const { payload } of arrived) {
    expect(Buffer.from(payload).toString()).toBe('hello')
    break
  }
  await session.close()
}

mosquittoTest(`Fleet Provisioning ${mosquittoMissing ?? ''}`, () => {
  it('by claim leads to a published message, with a key made here', async () => {
    const store = await open()
    const configurations: unknown[] = []
    const credential = await ensureCredentialByTemplate(store, template(), claim(), {
      ...quick,
      onConfiguration: (one) => void configurations.push(one),
    })
    expect(credential).toMatchObject({
      generation: 1,
      deviceSerial: 'SN-1',
      thingName: 'gw-SN-1',
      keyOrigin: 'device',
    })
    expect(configurations).toEqual([{ site: 'north' }])
    expect(operations()).toEqual(['create', 'register'])
    expect(aws.asked[1]?.request.parameters).toEqual({ SerialNumber: 'SN-1' })
    expect(store.pending()).toBeUndefined()
    await publishes(store)
    store.close()
    const again = await open(store.directory)
    await ensureCredentialByTemplate(again, template(), claim(), quick)
    expect(aws.asked).toHaveLength(2)
    // Neither the claim's key nor the ownership token is anybody's business later.
    const bytes = allBytes(store.directory).toString()
    expect(bytes).not.toContain(claimed.privateKey.split('\n')[1])
    expect(bytes).not.toContain('token-')
  })

  it('by trusted user does the same with the five-minute claim that the app was given', async () => {
    const temporary = await certify('Trusted', { issuer: iotCa })
    door.admit(temporary.certificate)
    const json = (expiration: number | string): string =>
      JSON.stringify({
        certificateId: certificateIdOf(temporary.certificate),
        certificatePem: temporary.certificate,
        keyPair: { PublicKey: 'unused', PrivateKey: temporary.privateKey },
        expiration,
      })
    const soon = Date.now() + 300_000
    for (const expiration of [soon / 1000, new Date(soon).toISOString()]) {
      const store = await open()
      const trusted = readProvisioningClaim(json(expiration), 'SN-2')
      expect(trusted.expiresAt.getTime()).toBe(soon)
      await ensureCredentialByTemplate(store, template(), trusted, quick)
      expect(store.current()?.thingName).toBe('gw-SN-2')
      await publishes(store)
      store.close()
    }
  })

  it('leaves the successor of a credential pending until it has proven itself', async () => {
    const store = await open()
    const first = await enrollByTemplate(store, template(), claim())
    const second = await enrollByTemplate(store, template(), claim())
    expect(store.current()?.certificateId).toBe(first.certificateId)
    expect(store.pending()).toMatchObject({
      state: 'issued',
      credential: { certificateId: second.certificateId },
    })
    store.close()
  })

  it('sends the parameters that the template wants', async () => {
    const store = await open()
    const parameters = { SerialNumber: 'SN-1', Line: '7' }
    await enrollByTemplate(store, template({ parameters }), claim())
    expect(aws.asked[1]?.request.parameters).toEqual(parameters)
    store.close()
  })

  describe('a lost answer', () => {
    it.each(['silent', 'lost', 'cut'] as const)(
      'to create (%s) costs nothing: the same key asks again',
      async (manner) => {
        aws.manners = [manner]
        const store = await open()
        await ensureCredentialByTemplate(store, template(), claim(), hasty)
        expect(operations()).toEqual(['create', 'create', 'register'])
        const keys = aws.asked.slice(0, 2).map(({ request }) => request.certificateSigningRequest)
        expect(new Set(await Promise.all(keys.map(publicKey))).size).toBe(1)
        await publishes(store)
        store.close()
      },
    )

    it.each(['lost', 'cut'] as const)(
      'to RegisterThing (%s) is found at the door, where the new certificate is let in',
      async (manner) => {
        aws.manners = ['honest', manner]
        const store = await open()
        await ensureCredentialByTemplate(store, template({ thingName: 'gw-SN-1' }), claim(), hasty)
        expect(operations()).toEqual(['create', 'register'])
        expect(door.knocks.map(({ outcome }) => outcome)).toEqual(['admitted', 'admitted'])
        await publishes(store)
        store.close()
      },
    )

    it('to RegisterThing that was never done is asked again with the same certificate', async () => {
      aws.manners = ['honest', 'silent']
      const store = await open()
      await ensureCredentialByTemplate(store, template({ thingName: 'gw-SN-1' }), claim(), hasty)
      expect(operations()).toEqual(['create', 'register', 'register'])
      expect(aws.asked[2]?.request).toEqual(aws.asked[1]?.request)
      // The claim, the new certificate in vain, the claim again.
      expect(door.knocks.map(({ outcome }) => outcome)).toEqual(['admitted', 'closed', 'admitted'])
      await publishes(store)
      store.close()
    })

    it('to RegisterThing, where nobody knows the name to knock with, leads to a new certificate for the same key', async () => {
      aws.manners = ['honest', 'lost']
      const store = await open()
      await ensureCredentialByTemplate(store, template(), claim(), hasty)
      expect(operations()).toEqual(['create', 'register', 'register', 'create', 'register'])
      await publishes(store)
      store.close()
    })

    it('costs a process that dies in between no key', async () => {
      aws.manners = ['honest', 'silent']
      const store = await open()
      const failure = await failureOf(enrollByTemplate(store, template(), claim(), hasty))
      expect(failure).toMatchObject({ code: 'ERR_REPLY_LOST', remedy: 'retry' })
      store.close()
      const reborn = await open(store.directory)
      await ensureCredentialByTemplate(reborn, template(), claim(), hasty)
      const requests = aws.asked.filter(({ operation }) => operation === 'create')
      const keys = requests.map(({ request }) => request.certificateSigningRequest)
      expect(new Set(await Promise.all(keys.map(publicKey))).size).toBe(1)
      reborn.close()
    })
  })

  it('answered by silence only, as when throttled, begins again from the start, and slows down', async () => {
    aws.manners = Array.from({ length: 5 }, () => 'silent')
    const store = await open()
    const waits: number[] = []
    await ensureCredentialByTemplate(store, template(), claim(), {
      answerMs: 100,
      backoff: { baseMs: 2, capMs: 1000 },
      random: () => 0.999,
      log: (line) => void (line.event === 'enroll.retry' && waits.push(line.waitMs)),
    })
    expect(waits.slice(0, 5).map(Math.ceil)).toEqual([2, 4, 8, 16, 32])
    expect(door.knocks).toHaveLength(waits.length + 1) // a session of its own for each
    store.close()
  })

  const rejections = [
    [400, 'InvalidCertificateOwnershipToken', 'ERR_REQUEST_REFUSED', 'retry'],
    [400, 'AccessDenied', 'ERR_CLAIM_REFUSED', 'operator'],
    [403, 'ACCESS_DENIED', 'ERR_CLAIM_REFUSED', 'operator'],
    [403, 'Forbidden', 'ERR_CLAIM_REFUSED', 'operator'],
    [401, 'Unauthorized', 'ERR_CLAIM_REFUSED', 'operator'],
    [400, 'ResourceConflictsException', 'ERR_CLAIM_SPENT', 'operator'],
    [409, 'ResourceAlreadyExistsException', 'ERR_CLAIM_SPENT', 'operator'],
    [429, 'TooManyRequests', 'ERR_SERVER_BUSY', 'retry'],
    [400, 'ThrottlingException', 'ERR_SERVER_BUSY', 'retry'],
    [500, 'InternalFailure', 'ERR_SERVER_BUSY', 'retry'],
    [503, 'ServiceUnavailable', 'ERR_SERVER_BUSY', 'retry'],
    [400, 'InvalidTemplate', 'ERR_REQUEST_REFUSED', 'operator'],
    [400, 'InvalidParameters', 'ERR_REQUEST_REFUSED', 'operator'],
    [400, 'ProvisioningFailed', 'ERR_REQUEST_REFUSED', 'operator'],
    [404, 'ResourceNotFoundException', 'ERR_REQUEST_REFUSED', 'operator'],
  ] as const
  it.each(rejections)('RegisterThing rejected with %i %s is %s (%s)', async (...row) => {
    const [statusCode, errorCode, code, remedy] = row
    aws.manners = ['honest', { rejected: { statusCode, errorCode, errorMessage: 'because' } }]
    const store = await open()
    const failure = await failureOf(enrollByTemplate(store, template(), claim()))
    expect(failure).toMatchObject({ code, remedy })
    expect(failure.message).toContain(`because (${errorCode}, ${statusCode})`)
    expect(store.current()).toBeUndefined()
    store.close()
  })

  it('create rejected says so, and a rejection may say next to nothing', async () => {
    const store = await open()
    const refused = { statusCode: 400, errorCode: 'InvalidCertificateSigningRequest' }
    for (const rejected of [refused, {}]) {
      aws.manners = [{ rejected }]
      expect(await failureOf(enrollByTemplate(store, template(), claim()))).toMatchObject({
        code: 'ERR_REQUEST_REFUSED',
        remedy: 'operator',
        message: expect.stringContaining('CreateCertificateFromCsr was rejected'),
      })
    }
    expect(operations()).toEqual(['create', 'create'])
    store.close()
  })

  it('an ownership token that has expired leads to a new certificate for the same key', async () => {
    aws.manners = ['honest', { rejected: tokenRefusal }]
    const store = await open()
    await ensureCredentialByTemplate(store, template(), claim(), quick)
    expect(operations()).toEqual(['create', 'register', 'create', 'register'])
    expect(aws.asked[3]?.request.certificateOwnershipToken).not.toBe(
      aws.asked[1]?.request.certificateOwnershipToken,
    )
    await publishes(store)
    store.close()
  })

  it('never tells the ownership token, even where the server echoes it', async () => {
    const store = await open()
    aws.manners = ['honest', 'echo']
    const failure = await failureOf(enrollByTemplate(store, template(), claim()))
    expect(failure.message).toContain('[redacted]')
    expect(failure.message).not.toContain('token-')
    store.close()
  })

  it.each([
    ['not JSON', 'nonsense'],
    ['no certificate', {}],
    ['a number for a certificate', { certificateId: 1, certificatePem: 2 }],
  ])('create answered with %s is malformed', async (_title, accepted) => {
    aws.manners = [{ accepted }]
    const store = await open()
    expect(await failureOf(enrollByTemplate(store, template(), claim()))).toMatchObject({
      code: 'ERR_REPLY_MALFORMED',
    })
    store.close()
  })

  it('a certificate for another key is refused before it is registered', async () => {
    const other = await certify('other', { issuer: iotCa })
    const certificateId = certificateIdOf(other.certificate)
    aws.manners = [
      {
        accepted: {
          certificateId,
          certificatePem: other.certificate,
          certificateOwnershipToken: 'x',
        },
      },
    ]
    const store = await open()
    expect(await failureOf(enrollByTemplate(store, template(), claim()))).toMatchObject({
      code: 'ERR_CERTIFICATE_MISMATCH',
      remedy: 'operator',
    })
    expect(operations()).toEqual(['create'])
    store.close()
  })

  it('a thing of another name than was expected is refused', async () => {
    const store = await open()
    const failure = await failureOf(
      enrollByTemplate(store, template({ thingName: 'else' }), claim()),
    )
    expect(failure).toMatchObject({ code: 'ERR_CERTIFICATE_MISMATCH', remedy: 'operator' })
    expect(store.current()).toBeUndefined()
    store.close()
  })

  it('a claim that is over, or not let in, is told as such', async () => {
    const store = await open()
    const late = claim({ expiresAt: new Date(Date.now() - 1000) })
    expect(await failureOf(enrollByTemplate(store, template(), late))).toMatchObject({
      code: 'ERR_CLAIM_REFUSED',
      remedy: 'operator',
    })
    expect(door.knocks).toEqual([])
    door.certificates.clear()
    const shut = await failureOf(enrollByTemplate(store, template(), claim()))
    expect(shut).toMatchObject({ code: 'ERR_SESSION_REFUSED', remedy: 'retry' })
    expect(shut.message).toContain('the claim')
    store.close()
  })

  it('ends when the caller gives up', async () => {
    const stop = new AbortController()
    aws.manners = ['silent']
    const store = await open()
    const reason = new Error('enough')
    const attempt = failureOf(
      ensureCredentialByTemplate(store, template(), claim(), { signal: stop.signal }),
    )
    await expect.poll(() => aws.asked.length).toBe(1)
    stop.abort(reason)
    expect(await attempt).toBe(reason)
    store.close()
  })
})
