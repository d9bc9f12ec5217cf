/** What comes back from a vending machine when it is honest, when it is busy, and until it is. */
import fs from 'node:fs'
import path from 'node:path'
import {
  type Credential,
  createVendingServer,
  enroll,
  ensureCredential,
  openCredentialStore,
} from '@certvend/client'
import { problemType } from '@certvend/client/wire'
import { HttpResponse } from 'msw'
import { describe, expect, it } from 'vitest'
import {
  attempt,
  authorities,
  bent,
  claim,
  clock,
  made,
  now,
  openFresh,
  pin,
  raw,
  refusalOf,
  server,
  token,
} from './attempt.ts'
import { publicKeyOf } from './pki.ts'
import { allBytes, temporaryDirectory } from './temporary.ts'
import { makeVendingMachine, type Respond } from './vending-machine.ts'

describe('an honest reply', () => {
  it('becomes the current credential, whole, with the key that was made before', async () => {
    const store = await openFresh()
    const machine = makeVendingMachine(authorities)
    const credential = (await attempt(store, machine)) as Credential
    expect(credential).toMatchObject({
      generation: 1,
      deviceSerial: 'device-1',
      thingName: 'device-1',
      keyOrigin: 'device',
      endpoint: {
        host: 'mqtt.example',
        port: 8883,
        trustAnchors: [authorities.mqttCa.certificate],
      },
      issuedAt: now,
    })
    expect(store.current()).toEqual(credential)
    expect(machine.orders).toHaveLength(1)
    expect(machine.orders[0]?.authorization).toBe(`Bearer ${token}`)
  })

  it('may bring the issuing CA, and members that nobody knows, which are not kept', async () => {
    const store = await openFresh()
    const respond = bent((reply) => ({
      ...reply,
      certificateChain: [...reply.certificateChain, authorities.deviceCa.certificate],
      RootCA: 'MALLORY',
      privateKey: 'MALLORY',
      endpoint: { ...reply.endpoint, alpn: 'x-amzn-mqtt-ca', pins: 'MALLORY' },
    }))
    const credential = (await attempt(
      store,
      makeVendingMachine(authorities, respond),
    )) as Credential
    expect(credential.endpoint.alpn).toBe('x-amzn-mqtt-ca')
    expect(credential.certificateChain.match(/BEGIN/g)).toHaveLength(2)
    expect(allBytes(store.directory).includes('MALLORY')).toBe(false)
  })

  it('may have a media type with parameters in any case', async () => {
    const respond: Respond = async (order, machine) =>
      HttpResponse.json((await machine.honest(order)) as never, {
        headers: { 'content-type': 'Application/JSON ; charset=UTF-8' },
      })
    const credential = await attempt(await openFresh(), makeVendingMachine(authorities, respond))
    expect(credential).toMatchObject({ thingName: 'device-1' })
  })

  it('is taken from a clock that lags four minutes behind the issuer, not six', async () => {
    const minutes = (count: number): Date => new Date(now.getTime() + count * 60_000)
    const store = await openFresh()
    const ahead = (count: number) =>
      makeVendingMachine(authorities, made({ notBefore: minutes(count) }))
    expect(await attempt(store, ahead(6))).toMatchObject({ code: 'ERR_CLOCK', remedy: 'retry' })
    expect(await attempt(store, ahead(4))).toMatchObject({ thingName: 'device-1' })
  })

  it('after any refusal is taken for the same key', async () => {
    const store = await openFresh()
    const lying = makeVendingMachine(authorities, raw(200, 'text/html', '<html>'))
    await attempt(store, lying)
    const key = fs.readFileSync(path.join(store.directory, 'pending/private-key.pem'), 'utf8')
    const machine = makeVendingMachine(authorities)
    const credential = (await attempt(store, machine)) as Credential
    expect(credential.privateKey.toPem()).toBe(key)
  })
})

describe('a server that says later', () => {
  const minutes = (count: number): Date => new Date(now.getTime() + count * 60_000)

  it('with 202 has deferred the request', async () => {
    const error = await refusalOf(raw(202, undefined, '', { 'retry-after': '300' }))
    expect(error).toMatchObject({ code: 'ERR_DEFERRED', remedy: 'retry', retryAt: minutes(5) })
  })

  it('with 202 and no Retry-After has named no moment', async () => {
    const error = await refusalOf(raw(202, undefined, ''))
    expect(error.code).toBe('ERR_DEFERRED')
    expect(error.retryAt).toBeUndefined()
  })

  it.each([429, 502, 503, 504])('with %i is busy, even by a page of HTML', async (status) => {
    const error = await refusalOf(raw(status, 'text/html', '<html>', { 'retry-after': '120' }))
    expect(error).toMatchObject({ code: 'ERR_SERVER_BUSY', remedy: 'retry', retryAt: minutes(2) })
  })

  it('by an appointment of over an hour is remembered across a restart, and not asked before', async () => {
    const directory = path.join(temporaryDirectory(), 'state')
    const later = makeVendingMachine(
      authorities,
      raw(503, 'text/html', '', { 'retry-after': '7200' }),
    )
    const store = await openCredentialStore(directory)
    expect(await attempt(store, later)).toMatchObject({ retryAt: minutes(120) })
    store.close()
    const machine = makeVendingMachine(authorities)
    const again = await openCredentialStore(directory)
    const at = (moment: Date) => ({ clock: { ...clock, now: () => moment } })
    const early = await attempt(again, machine, at(minutes(119)))
    expect(early).toMatchObject({ code: 'ERR_SERVER_BUSY', retryAt: minutes(120) })
    expect(machine.orders).toHaveLength(0)
    expect(await attempt(again, machine, at(minutes(120)))).toMatchObject({ generation: 1 })
  })

  it('does not bind a device that was pointed at another server', async () => {
    const store = await openFresh()
    const later = makeVendingMachine(
      authorities,
      raw(503, 'text/html', '', { 'retry-after': '7200' }),
    )
    await attempt(store, later)
    const machine = makeVendingMachine(authorities)
    const elsewhere = createVendingServer({ url: 'https://other.example', pins: pin })
    const asking = enroll(store, elsewhere, claim, { clock, send: machine.send })
    expect(await asking).toMatchObject({ thingName: 'device-1' })
  })
})

describe('asking until it helps', () => {
  it('survives every kind of bad day and makes one key', async () => {
    const badDays: Respond[] = [
      raw(503, 'text/html', '', { 'retry-after': '60' }),
      raw(200, 'text/html', '<html>captive portal</html>'),
      raw(202, undefined, ''),
      raw(500, 'application/problem+json', JSON.stringify({ type: problemType('internal') })),
      made({ notBefore: new Date('2048-01-01') }),
    ]
    const waits: number[] = []
    const machine = makeVendingMachine(authorities, (order, honest) => {
      const respond = badDays.shift()
      return respond
        ? respond(order, honest)
        : honest.honest(order).then((reply) => HttpResponse.json(reply as never))
    })
    const store = await openFresh()
    const credential = await ensureCredential(store, server(), claim, {
      send: machine.send,
      random: () => 0.5,
      clock: {
        now: () => now,
        wait: async (ms) => {
          waits.push(ms)
        },
      },
    })
    expect(credential.generation).toBe(1)
    const keys = await Promise.all(machine.orders.map(({ csr }) => publicKeyOf(csr)))
    expect(keys).toHaveLength(6)
    expect(new Set(keys.map((key) => Buffer.from(key).toString('hex'))).size).toBe(1)
    expect(waits).toEqual([60_500, 1000, 2000, 4000, 8000])
  })

  it('ends at once when only a person can help', async () => {
    const machine = makeVendingMachine(
      authorities,
      raw(401, 'application/problem+json', JSON.stringify({ type: problemType('claim-refused') })),
    )
    const store = await openFresh()
    const asking = ensureCredential(store, server(), claim, { send: machine.send, clock })
    await expect(asking).rejects.toMatchObject({ code: 'ERR_CLAIM_REFUSED', remedy: 'operator' })
    expect(machine.orders).toHaveLength(1)
  })

  it('with a stored credential asks nobody', async () => {
    const store = await openFresh()
    const machine = makeVendingMachine(authorities)
    await attempt(store, machine)
    const again = await ensureCredential(store, server(), claim, {
      clock,
      send: () => Promise.reject(new Error('a request was made')),
    })
    expect(again.generation).toBe(1)
  })
})
