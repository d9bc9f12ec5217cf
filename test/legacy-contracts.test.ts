/** Our own server in the place of each old vending machine: the same sentences, over real TLS. */
import http from 'node:http'
import https from 'node:https'
import { text } from 'node:stream/consumers'
import { createClaim, createEndpoint, createVendingServer } from '@certvend/client'
import { generateToken, hashToken } from '@certvend/server'
import { type Lab, startLab } from '@certvend/server/lab'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type OldDialect, oldDialects } from './contracts/machines.ts'
import { withoutNetwork } from './contracts/reference.ts'
import {
  contract,
  fieldRequests,
  type Implementation,
  type Machine,
  type RawReply,
  type RawRequest,
  wrongToken,
} from './contracts/suite.ts'

/** Where each stood: the two that shared a URL are told apart by API Gateway's stage. */
const stages: Readonly<Record<OldDialect, string>> = {
  'awslabs-2018': '/LATEST',
  'awslabs-2020': '/Prod',
  'iot-atlas': '/dev',
  'gateway-2021': '/prod',
  'express-2017': '',
}

let lab: Lab
const fleetToken = generateToken()
beforeAll(async () => {
  lab = await startLab({
    legacy: oldDialects.map((name) => ({
      name,
      ...(name.startsWith('awslabs') && { prefix: stages[name] }),
    })),
  })
  const stored = await hashToken(fleetToken, 'generated')
  await lab.registry.addFleet('field', stored, new Date())
})
afterAll(() => lab.close())

const urlOf = (dialect: OldDialect): string =>
  dialect === 'express-2017' ? lab.plainUrl! : `${lab.vendingUrl}${stages[dialect]}`

const ours: Implementation = {
  name: 'our own server',
  async start(dialect): Promise<Machine> {
    const { host, port, trustAnchors } = lab.mqtt
    const endpoint = createEndpoint(`${host}:${port}`, trustAnchors.join(''))
    return {
      server: createVendingServer({
        url: urlOf(dialect),
        ...(dialect !== 'express-2017' && { pins: lab.pins }),
        dialect: { name: dialect, ...(dialect !== 'iot-atlas' && { endpoint }) },
      }),
      addDevice: async () => {
        if (dialect !== 'gateway-2021') return createClaim({ ...(await lab.addDevice()), dialect })
        const deviceSerial = `field-${generateToken().replaceAll(/\W/g, '')}`
        const row = { deviceSerial, thingName: deviceSerial, fleet: 'field' }
        await lab.registry.add(row, undefined, new Date())
        return createClaim({ deviceSerial, token: fleetToken, dialect })
      },
      ask: (request) => ask(urlOf(dialect), request),
    }
  },
}

/** As an old client asks: no library that would mend anything. */
const ask = (base: string, { method, path, headers = {}, body }: RawRequest): Promise<RawReply> =>
  new Promise((resolve, reject) => {
    const { request } = base.startsWith('https:') ? https : http
    const url = new URL(base.replace(/\/$/, '') + path)
    const trust = { ca: lab.pins, allowPartialTrustChain: true }
    const outgoing = request(url, { method, headers, agent: false, ...trust }, (incoming) => {
      text(incoming).then(
        (said) =>
          resolve({
            status: incoming.statusCode ?? 0,
            headers: Object.fromEntries(
              Object.entries(incoming.headers).map(([name, value]) => [name, String(value)]),
            ),
            body: said,
          }),
        reject,
      )
    })
    outgoing.on('error', reject).end(body)
  })

describe('the contract', () => {
  for (const dialect of oldDialects) contract(ours, dialect)
})

type Occasion = 'wrong token' | 'unknown serial' | 'asked again'

/**
 * Where our answers differ from the old machines', each on purpose: HTTP status, or the member that
 * stood for it, of theirs and of ours. What is not listed is the same, text and all.
 */
const differences: Partial<
  Record<OldDialect, Partial<Record<Occasion, readonly [theirs: string, ours: string]>>>
> = {
  // Theirs destroyed nothing and gave nothing; ours gives another certificate.
  'awslabs-2018': { 'asked again': ['200 null', '200 a certificate'] },
  // 500 for everything, and nobody could tell from it what to do.
  'awslabs-2020': {
    'wrong token': ['500 Access Denied', '403 Access Denied'],
    'unknown serial': ['500 Access Denied', '403 Access Denied'],
  },
  // Who is not known, and who has a wrong token, hear the same of ours.
  'iot-atlas': {
    'wrong token': ['200 500 Device token is not valid', '200 403 Device token is not valid'],
    'unknown serial': ['200 404 Device not found', '200 403 Device token is not valid'],
    'asked again': ['200 500 Device is already registered', '200 a certificate'],
  },
  // Any serial was taken from whoever had the fleet's token; ours has to be in the registry.
  'gateway-2021': {
    'wrong token': [
      '403 User is not authorized to access this resource with an explicit deny',
      '401 Unauthorized',
    ],
    'unknown serial': ['200 a certificate', '401 Unauthorized'],
    'asked again': [
      '400 Thing exists in the AWS IoT Account, exiting...',
      '409 Thing exists in the AWS IoT Account, exiting...',
    ],
  },
  // Whom it refused it let wait for ever.
  'express-2017': {
    'wrong token': ['no answer', '403 40030'],
    'unknown serial': ['no answer', '403 40030'],
  },
}

/** Status and what was said, short. */
function gist({ status, body }: RawReply): string {
  if (body.includes('PRIVATE KEY')) return `${status} a certificate`
  let said: unknown = body
  try {
    said = JSON.parse(body)
  } catch {}
  const { statusCode, payload, error, message, Message, conCheck } = (said ?? {}) as Record<
    string,
    unknown
  >
  const words = [
    statusCode,
    (payload as { message?: string })?.message ?? error ?? message ?? Message ?? conCheck,
  ]
  const short = words.filter((word) => word !== undefined).join(' ')
  return `${status} ${short || said}`
}

describe.each(oldDialects)('what %s says to whom it refuses', (dialect) => {
  const occasions: Record<Occasion, (machine: Machine) => Promise<RawReply>> = {
    'wrong token': async (machine) =>
      machine.ask(fieldRequests[dialect]((await machine.addDevice()).deviceSerial, wrongToken)),
    'unknown serial': async (machine) =>
      machine.ask(
        fieldRequests[dialect]('device-nobody-entered', (await machine.addDevice()).token),
      ),
    'asked again': async (machine) => {
      const { deviceSerial, token } = await machine.addDevice()
      const request = fieldRequests[dialect](deviceSerial, token)
      expect(gist(await machine.ask(request))).toBe('200 a certificate')
      return machine.ask(request)
    },
  }

  it.each(Object.keys(occasions) as Occasion[])(
    'is what it always was, or differs as the table says: %s',
    async (occasion) => {
      const both = await Promise.all(
        [withoutNetwork, ours].map(async (implementation) =>
          occasions[occasion](await implementation.start(dialect)).then(gist, () => 'no answer'),
        ),
      )
      const [theirs] = both
      expect(both).toEqual(differences[dialect]?.[occasion] ?? [theirs, theirs])
    },
  )
})
