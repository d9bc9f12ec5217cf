/**
 * The IoT Core examples, unchanged, against MiniStack's control plane and its mutual-TLS broker.
 * `npm run test:aws` starts it; elsewhere this is skipped. Third parties read AWS's documentation
 * here: where they and AWS differ, AWS is right.
 */
import { createPublicKey, generateKeyPairSync, sign } from 'node:crypto'
import { connect, createCredential, createEndpoint, type Session } from '@certvend/client'
import { createCertificationRequest } from '@certvend/client/csr'
import { beforeAll, describe, expect, it } from 'vitest'
import { filesOf, runExample } from './example.ts'
import { address, aws, fetchAnchors, makeThing, type Thing, url } from './ministack.ts'
import { certify } from './pki.ts'
import { temporaryDirectory } from './temporary.ts'

let anchors: string

const connected = ({ thingName, certificatePem, privateKey }: Thing): Promise<Session> =>
  connect(
    createCredential({
      thingName,
      certificateChain: certificatePem,
      privateKey,
      endpoint: createEndpoint(address, anchors),
    }),
  )

/** What an example takes on its command line. */
function argumentsFor({ thingName, certificatePem, privateKey }: Thing): string[] {
  const at = filesOf({
    'device.pem': certificatePem,
    'key.pem': privateKey,
    'anchors.pem': anchors,
  })
  return ['--anchors', at['anchors.pem'], address, thingName, at['device.pem'], at['key.pem']]
}

describe.skipIf(!url)(`against MiniStack ${url ? '' : '(npm run test:aws)'}`, () => {
  beforeAll(async () => {
    anchors = await fetchAnchors()
  })

  it('iot-core-mqtt speaks with a certificate that IoT made', async () => {
    const thing = await makeThing()
    const { code, out, err } = await runExample('iot-core-mqtt', ...argumentsFor(thing))
    expect({ code, out, err }).toEqual({
      code: 0,
      out: `certvend/${thing.thingName}/hello: hello from ${thing.thingName}\n`,
      err: '',
    })
  })

  it('a certificate that IoT made for our CSR opens a session', async () => {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const key = {
      publicKey: createPublicKey(privateKey),
      sign: async (data: Uint8Array) => sign('sha256', data, privateKey),
    }
    const certificateSigningRequest = await createCertificationRequest(key, 'SN-1')
    const made = await aws('POST', '/certificates?setAsActive=true', { certificateSigningRequest })
    const session = await connected({
      thingName: 'SN-1',
      certificateId: made.certificateId as string,
      certificatePem: made.certificatePem as string,
      privateKey: privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
    })
    await session.publish('up', 'hello')
    await session.close()
  })

  it('acceptance passes; that no policy is enforced is noted', { timeout: 90_000 }, async () => {
    const { code, out } = await runExample('acceptance', ...argumentsFor(await makeThing()))
    expect(out).toContain('6 passed, 0 failed, 1 noted, 1 skipped')
    expect(code).toBe(0)
  })

  // MiniStack says CONNACK 5 where IoT Core closes without a word.
  it('a certificate made INACTIVE is refused', async () => {
    const thing = await makeThing()
    await aws('PUT', `/certificates/${thing.certificateId}?newStatus=INACTIVE`)
    await expect(connected(thing)).rejects.toMatchObject({
      code: 'ERR_SESSION_REFUSED',
      remedy: 'retry',
    })
  })

  it('jitr registers by its first connect, is activated by whoever hears the event, and online', async () => {
    const ca = await certify('Factory CA', { ca: true })
    const { certificateId: caId } = await aws(
      'POST',
      '/cacertificate?setAsActive=true&allowAutoRegistration=true',
      { caCertificate: ca.certificate, certificateMode: 'SNI_ONLY' },
    )
    const cloud = await connected(await makeThing())
    const events = await cloud.subscribe(`$aws/events/certificates/registered/${caId}`)
    const activated = (async () => {
      for await (const { payload } of events) {
        const event = JSON.parse(Buffer.from(payload).toString())
        expect(event).toMatchObject({ certificateStatus: 'PENDING_ACTIVATION' })
        await aws('PUT', `/certificates/${event.certificateId}?newStatus=ACTIVE`)
        return
      }
    })()
    const device = await certify('new', { issuer: ca })
    const { code, out } = await runExample(
      'jitr',
      ...argumentsFor({
        thingName: 'new',
        certificateId: '',
        certificatePem: device.certificate + ca.certificate,
        privateKey: device.privateKey,
      }),
    )
    expect(out).toMatch(/closed the connection before CONNACK; .*\nnew is online\n$/s)
    expect(code).toBe(0)
    await activated
    await cloud.close()
  })

  it('fleet-provisioning enrolls by claim and by trusted user', {
    timeout: 90_000,
  }, async (context) => {
    const templateBody = JSON.stringify({
      Parameters: {
        SerialNumber: { Type: 'String' },
        'AWS::IoT::Certificate::Id': { Type: 'String' },
      },
      Resources: {
        thing: { Type: 'AWS::IoT::Thing', Properties: { ThingName: { Ref: 'SerialNumber' } } },
        certificate: {
          Type: 'AWS::IoT::Certificate',
          Properties: { CertificateId: { Ref: 'AWS::IoT::Certificate::Id' }, Status: 'Active' },
        },
      },
    })
    await aws('POST', '/provisioning-templates', {
      templateName: 'gateways',
      provisioningRoleArn: 'arn:aws:iam::000000000000:role/provisioning',
      enabled: true,
      templateBody,
    })
    const probe = await connected(await makeThing())
    const answers = await probe.subscribe('$aws/certificates/create-from-csr/json/rejected')
    await probe.publish('$aws/certificates/create-from-csr/json', '{}')
    const answered = await Promise.race([
      (async () => {
        for await (const _ of answers) return true
        return false
      })(),
      new Promise((resolve) => AbortSignal.timeout(10_000).addEventListener('abort', resolve)),
    ])
    await probe.close()
    context.skip(answered !== true, 'this MiniStack has no CreateCertificateFromCsr over MQTT')

    const user = await aws('POST', '/provisioning-templates/gateways/provisioning-claim')
    const claim = await makeThing()
    const at = filesOf({
      'anchors.pem': anchors,
      'claim.pem': claim.certificatePem,
      'key.pem': claim.privateKey,
      'claim.json': JSON.stringify(user),
    })
    const where = (serial: string): string[] => [
      ...['--anchors', at['anchors.pem'], address],
      ...[temporaryDirectory(), 'gateways', serial],
    ]
    const byClaim = await runExample(
      'fleet-provisioning',
      ...where('A'),
      at['claim.pem'],
      at['key.pem'],
    )
    expect(byClaim.out).toContain('enrolled as A, and online')
    const byUser = await runExample('fleet-provisioning', ...where('B'), at['claim.json'])
    expect(byUser.out).toContain('enrolled as B, and online')
  })
})
