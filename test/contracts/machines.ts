/**
 * The five vending machines in the field as msw handlers, each as its source was read and its answers
 * were seen: what it is asked, what it does to the account, what it says, in this order.
 */

import type { DialectName } from '@certvend/client'
import { HttpResponse, http, type RequestHandler } from 'msw'
import { type Made, type Row, servedRootCa, type World } from './world.ts'

export type OldDialect = Exclude<DialectName, 'certvend'>

/** Thrown where a request gets no answer at all: the connection stays open, and silent. */
export class Unanswered extends Error {}

/** As `CreateKeysAndCertificate` says it, and the one key more. */
const awslabsBody = (made: Made): object => ({
  certificateArn: made.arn,
  certificateId: made.certificate.id,
  certificatePem: made.certificate.pem,
  keyPair: { PublicKey: made.publicKey, PrivateKey: made.privateKey },
  RootCA: servedRootCa,
})

const text = (body: string, status: number): Response =>
  new HttpResponse(body, { status, headers: { 'content-type': 'text/plain' } })

/** JSON as JavaScript's loose comparison sees it: a missing token equals a missing token. */
// biome-ignore lint/suspicious/noDoubleEquals: that is how the field compares
const loosely = (a: unknown, b: unknown): boolean => a == b

/** API Gateway's own answer where it has no such path or method. */
const elsewhere: RequestHandler = http.all('*', () =>
  HttpResponse.json({ message: 'Missing Authentication Token' }, { status: 403 }),
)

const awslabs2018 = (world: World): RequestHandler =>
  http.get('*/getcert', async ({ request }) => {
    const query = new URL(request.url).searchParams
    const serial = query.get('serialNumber') ?? ''
    const row = world.rows.get(serial)
    if (!row || !loosely(row.token, query.get('deviceToken')))
      return HttpResponse.json('Access Deny!')
    try {
      // The certificate first: a repeated call leaves another that nobody holds.
      const made = await world.createKeysAndCertificate()
      world.createPolicy(serial)
      world.createThing(serial)
      world.attach(made, { policy: serial, thing: serial })
      try {
        world.step('update')
      } catch {
        return HttpResponse.json('Identical serial number error!')
      }
      row.certinfo = made.arn
      return HttpResponse.json(awslabsBody(made))
    } catch {
      return HttpResponse.json(null)
    }
  })

const awslabs2020 = (world: World): RequestHandler =>
  http.get('*/getcert', async ({ request }) => {
    const query = new URL(request.url).searchParams
    const serial = query.get('serialNumber')
    if (!serial) return text('Service error', 500)
    const row = world.rows.get(serial)
    if (!row || !loosely(row.token, query.get('deviceToken'))) return text('Access Denied', 500)
    try {
      if (row.certinfo) world.destroy(row.certinfo)
      else {
        world.createPolicy(serial)
        world.createThing(serial)
      }
      const made = await world.createKeysAndCertificate()
      world.attach(made, { policy: serial, thing: serial })
      world.step('update')
      row.certinfo = made.arn
      return new HttpResponse(JSON.stringify(awslabsBody(made), undefined, '\t'), {
        headers: { 'content-type': 'application/json' },
      })
    } catch {
      return text('Error issuing certificate!', 500)
    }
  })

const iotAtlas = (world: World): RequestHandler =>
  http.post('*/registration', async ({ request }) => {
    const refuse = (message: string, statusCode = 500): Response =>
      HttpResponse.json({ statusCode, status: 'ERROR', payload: { message } })
    const asked = (await request.json()) as { device_uid?: string; device_token?: string }
    if (!asked.device_uid || !asked.device_token) return refuse('Missing input data')
    const row = world.rows.get(asked.device_uid)
    if (!row) return refuse('Device not found', 404)
    if (row.registered === 1) return refuse('Device is already registered')
    if (row.enabled === 0) return refuse("Device isn't enabled")
    if (row.token !== asked.device_token) return refuse('Device token is not valid')
    const thing = `thing_${asked.device_uid}`
    const steps: [string, () => Promise<void> | void][] = []
    let made: Made | undefined
    steps.push(
      [
        'Unable to create device certificates',
        async () => {
          made = await world.createKeysAndCertificate()
        },
      ],
      [
        'Unable to attach policy to the certificate',
        () => world.attach(made!, { policy: 'SingleDevicePolicy' }),
      ],
      [
        'Unable to create thing',
        () => {
          if (world.things.has(thing)) throw new Error('another registered_on')
          world.createThing(thing)
        },
      ],
      ['Unable to attach certificate to the device', () => world.attach(made!, { thing })],
      ['Unable to download root CA', () => world.step('download')],
      ['Database error during device record update', () => world.step('update')],
    )
    for (const [complaint, act] of steps)
      try {
        await act()
      } catch {
        return refuse(complaint)
      }
    row.registered = 1
    try {
      world.step('describeEndpoint')
    } catch {
      return refuse('Error while getting IoT Core endpoint')
    }
    return HttpResponse.json({
      statusCode: 200,
      status: 'SUCCESS',
      payload: {
        endpoint: world.endpoint,
        thing_name: thing,
        certificates: { device_certificate: made!.certificate.pem, root_ca: servedRootCa },
        keyPair: { publicKey: made!.publicKey, privateKey: made!.privateKey },
      },
    })
  })

const gateway2021 = (world: World): RequestHandler[] => [
  http.get('*/register', () =>
    HttpResponse.json({ response: true, time: Math.round(Date.now() / 1000) }),
  ),
  http.post('*/register', async ({ request }) => {
    const given = request.headers.get('authorization')
    if (!given) return HttpResponse.json({ message: 'Unauthorized' }, { status: 401 })
    const [scheme, token = ''] = given.split(' ')
    if (scheme !== 'DeviceToken' || !world.fleetTokens.has(token))
      return HttpResponse.json(
        { Message: 'User is not authorized to access this resource with an explicit deny' },
        { status: 403 },
      )
    const { thingName } = (await request.json()) as { thingName: string }
    const refuse = (error: string, status = 400): Response =>
      HttpResponse.json({ status: false, error }, { status })
    if (world.things.has(thingName))
      return refuse('Thing exists in the AWS IoT Account, exiting...')
    try {
      world.createThing(thingName)
      const made = await world.createKeysAndCertificate()
      world.attach(made, { policy: 'fleet', thing: thingName })
      return HttpResponse.json({
        certificateData: {
          pem: made.certificate.pem,
          key_pair: { public_key: made.publicKey, private_key: made.privateKey },
        },
        rootCa: servedRootCa,
      })
    } catch {
      return refuse('Error registering thing agent in AWS IoT')
    }
  }),
]

const express2017 = (world: World): RequestHandler[] => [
  http.get('*/', () => text('Access Deny!', 200)),
  http.post('*/', async ({ request }) => {
    const body = await request.text()
    const form = request.headers.get('content-type')?.startsWith('application/json')
      ? (JSON.parse(body) as Record<string, string>)
      : Object.fromEntries(new URLSearchParams(body))
    if (!form.seriaNum) return text('Invalid requset!', 200)
    const row: Row | undefined = world.rows.get(form.seriaNum)
    // Its callback is not called: the connection stays open, and silent.
    if (!row || row.token !== form.accessToken) throw new Unanswered()
    if (row.applyState !== 1) return HttpResponse.json({ rootCA: servedRootCa, conCheck: 40010 })
    try {
      const made = await world.createKeysAndCertificate()
      world.policies.add(form.seriaNum)
      world.createThing(form.seriaNum)
      world.attach(made, { policy: form.seriaNum, thing: form.seriaNum })
      const { RootCA: _, ...certdata } = awslabsBody(made) as { RootCA: string }
      return HttpResponse.json({ rootCA: servedRootCa, conCheck: 20020, certdata })
    } catch {
      return HttpResponse.json({ rootCA: servedRootCa, conCheck: 50010 })
    }
  }),
]

/** The handlers of each, over one world. */
export const machines: Readonly<Record<OldDialect, (world: World) => RequestHandler[]>> = {
  'awslabs-2018': (world) => [awslabs2018(world), elsewhere],
  'awslabs-2020': (world) => [awslabs2020(world), elsewhere],
  'iot-atlas': (world) => [iotAtlas(world), elsewhere],
  'gateway-2021': (world) => [...gateway2021(world), elsewhere],
  'express-2017': express2017,
}

export const oldDialects: readonly OldDialect[] = Object.keys(machines) as OldDialect[]
