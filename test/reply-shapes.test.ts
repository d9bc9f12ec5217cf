/**
 * The shape of a reply, judged: whatever is not whole and well-formed is refused, and nothing of it
 * is kept but the key that was there before.
 */
import fs from 'node:fs'
import path from 'node:path'
import { CertvendError, type CredentialStore } from '@certvend/client'
import fc from 'fast-check'
import { HttpResponse } from 'msw'
import { beforeAll, describe, expect, it } from 'vitest'
import { attempt, authorities, bent, json, openFresh, raw, refusalOf, stranger } from './attempt.ts'
import {
  type Certified,
  certificateIdOf,
  certify,
  certifyRequest,
  der,
  makeKeys,
  pem,
} from './pki.ts'
import { makeVendingMachine, type Reply, type Respond } from './vending-machine.ts'

let weakCa: Certified

beforeAll(async () => {
  weakCa = await certify('Weak CA', { ca: true, keys: await makeKeys('RSA-1024') })
})

describe('a reply of another shape', () => {
  const leaf = async (order: { csr: string }): Promise<string> =>
    certifyRequest(order.csr, 'device-1', { issuer: authorities.deviceCa })
  const chainText =
    (bend: (certificate: string) => unknown): Respond =>
    async (order, machine) =>
      HttpResponse.json({
        ...(await machine.honest(order)),
        certificateChain: bend(await leaf(order)) as never,
      })
  const endpoint = (more: object): Respond =>
    bent((reply) => ({ ...reply, endpoint: { ...reply.endpoint, ...more } }))
  const without = (name: keyof Reply): Respond =>
    bent((reply) => {
      delete (reply as Partial<Reply>)[name]
    })

  it.each<readonly [string, Respond]>([
    ['HTML that says 200', raw(200, 'text/html', '<html><h1>Sign in</h1></html>')],
    ['HTML that says it is JSON', raw(200, json, '<html><h1>Sign in</h1></html>')],
    [
      'JSON that says it is HTML',
      async (order, machine) =>
        HttpResponse.json((await machine.honest(order)) as never, {
          headers: { 'content-type': 'text/html' },
        }),
    ],
    [
      'an honest reply without a media type',
      async (order, machine) =>
        new HttpResponse(Buffer.from(JSON.stringify(await machine.honest(order)))),
    ],
    [
      'an honest reply with status 201',
      async (order, machine) =>
        HttpResponse.json((await machine.honest(order)) as never, { status: 201 }),
    ],
    ['nothing at all', raw(200, json, '')],
    ['no content', () => new HttpResponse(null, { status: 204 })],
    ['null', raw(200, json, 'null')],
    ['a number', raw(200, json, '42')],
    ['a string', raw(200, json, '"certificate"')],
    ['an array', raw(200, json, '[]')],
    ['an empty object', raw(200, json, '{}')],
    ['JSON nested 10 000 deep', raw(200, json, '['.repeat(10_000) + ']'.repeat(10_000))],
    ['invalid UTF-8', raw(200, json, new Uint8Array([0x7b, 0x22, 0xff, 0xfe, 0x22, 0x7d]))],
    ['UTF-16', raw(200, json, new Uint8Array(Buffer.from('{}', 'utf16le')))],
    [
      'two documents',
      async (order, machine) => {
        const text = JSON.stringify(await machine.honest(order))
        return new HttpResponse(text + text, { headers: { 'content-type': json } })
      },
    ],
    ['no chain', without('certificateChain')],
    ['no endpoint', without('endpoint')],
    ['no certificateId', without('certificateId')],
    ['no device serial', without('deviceSerial')],
    [
      'members only in the prototype',
      async (order, machine) =>
        new HttpResponse(`{"__proto__":${JSON.stringify(await machine.honest(order))}}`, {
          headers: { 'content-type': json },
        }),
    ],
    ['an empty chain', chainText(() => [])],
    ['a chain of eleven', chainText((one) => Array(11).fill(one))],
    ['a chain that is one text', chainText((one) => one)],
    ['two certificates in one text', chainText((one) => [one + one])],
    ['a certificate with words before it', chainText((one) => [`subject=\n${one}`])],
    ['a certificate with words after it', chainText((one) => [`${one}hello`])],
    ['a certificate as DER in base64', chainText((one) => [der(one).toString('base64')])],
    ['a certificate cut short', chainText((one) => [pem('CERTIFICATE', der(one).subarray(0, -9))])],
    ['armour around garbage', chainText(() => [pem('CERTIFICATE', Buffer.from('garbage'))])],
    ['a private key as certificate', chainText(() => [stranger.privateKey])],
    [
      'an upper-case certificateId',
      bent((r) => ({ ...r, certificateId: r.certificateId.toUpperCase() })),
    ],
    ['a thing name with a slash', bent((r) => ({ ...r, thingName: 'a/b' }))],
    ['a thing name that is a topic filter', bent((r) => ({ ...r, thingName: '#' }))],
    ['an empty thing name', bent((r) => ({ ...r, thingName: '' }))],
    ['a thing name of 129 characters', bent((r) => ({ ...r, thingName: 'a'.repeat(129) }))],
    [
      'a thing name that leaves the directory',
      bent((r) => ({ ...r, thingName: '../../etc/passwd' })),
    ],
    ['port 0', endpoint({ port: 0 })],
    ['port 65536', endpoint({ port: 65536 })],
    ['a port as text', endpoint({ port: '8883' })],
    ['half a port', endpoint({ port: 8883.5 })],
    ['an empty host', endpoint({ host: '' })],
    ['a host with a path', endpoint({ host: 'mqtt.example/x' })],
    ['a host with a line break', endpoint({ host: 'mqtt.example\n' })],
    ['a host of 254 characters', endpoint({ host: 'a'.repeat(254) })],
    ['an ALPN name with a space', endpoint({ alpn: 'x amzn' })],
    ['no trust anchors', endpoint({ trustAnchors: [] })],
    ['an empty trust anchor', endpoint({ trustAnchors: [''] })],
    ['a garbage trust anchor', endpoint({ trustAnchors: [pem('CERTIFICATE', Buffer.from('x'))] })],
    [
      'a weak trust anchor',
      bent((r) => ({ ...r, endpoint: { ...r.endpoint, trustAnchors: [weakCa.certificate] } })),
    ],
    [
      'a trust anchor that is no CA',
      bent((r) => ({ ...r, endpoint: { ...r.endpoint, trustAnchors: r.certificateChain } })),
    ],
  ])('is refused as malformed: %s', async (_title, respond) => {
    const error = await refusalOf(respond)
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
    expect(error.message.length).toBeLessThan(400)
  })

  it.each([301, 302, 303, 307, 308])('a redirect (%i) is not followed', async (status) => {
    const orders: string[] = []
    const respond: Respond = ({ deviceSerial }) => {
      orders.push(deviceSerial)
      return new HttpResponse(null, {
        status,
        headers: { location: 'https://vending.example/v1/enroll' },
      })
    }
    const error = await refusalOf(respond)
    expect(error).toMatchObject({ code: 'ERR_REPLY_MALFORMED', remedy: 'retry' })
    expect(error.message).toContain('redirect')
    expect(orders).toHaveLength(1)
  })

  it('truncated at any byte is refused, and nothing is stored', async () => {
    const store = await openFresh()
    const { privateKey } = store.begin()
    const csr = { csr: '', key: privateKey }
    const capture = makeVendingMachine(authorities, (order) => {
      csr.csr = order.csr
      return new HttpResponse(null, { status: 503 })
    })
    await attempt(store, capture)
    const order = { deviceSerial: 'device-1', csr: csr.csr, authorization: null }
    const body = Buffer.from(JSON.stringify(await capture.honest(order)))
    for (let length = 0; length < body.length; length++) {
      const reply = {
        status: 200,
        headers: { 'content-type': json },
        body: body.subarray(0, length),
      }
      const error = await attempt(store, { send: async () => reply })
      expect(error, `cut after ${length} bytes`).toMatchObject({ code: 'ERR_REPLY_MALFORMED' })
    }
    expect(store.current()).toBeUndefined()
    const whole = { status: 200, headers: { 'content-type': json }, body }
    expect(await attempt(store, { send: async () => whole })).toMatchObject({ generation: 1 })
  })

  it('with any bytes changed is refused with one of our errors or holds a certificate for our key', async () => {
    const store = await openFresh()
    const orders: Reply[] = []
    const capture = makeVendingMachine(authorities, async (order, machine) => {
      orders.push(await machine.honest(order))
      return new HttpResponse(null, { status: 503 })
    })
    await attempt(store, capture)
    const honest = orders[0]!
    const text = Buffer.from(JSON.stringify(honest))
    const id = honest.certificateId
    const edits = fc.array(
      fc.record({ at: fc.nat(text.length - 1), byte: fc.integer({ min: 0x20, max: 0x7e }) }),
      { minLength: 1, maxLength: 3 },
    )
    await fc.assert(
      fc.asyncProperty(edits, async (changes) => {
        const body = Buffer.from(text)
        for (const { at, byte } of changes) body[at] = byte
        const reply = { status: 200, headers: { 'content-type': json }, body }
        const outcome = await attempt(store, { send: async () => reply })
        if (outcome instanceof CertvendError) return store.current() === undefined
        const { certificateId } = outcome
        forget(store)
        return certificateId === id
      }),
      { numRuns: 400, seed: 20270301 },
    )
  })

  it('with a certificate of which any byte was changed, and its id with it, is refused with one of our errors or still ours', async () => {
    const store = await openFresh()
    const replies: Reply[] = []
    const capture = makeVendingMachine(authorities, async (order, machine) => {
      replies.push(await machine.honest(order))
      return new HttpResponse(null, { status: 503 })
    })
    await attempt(store, capture)
    const honest = replies[0]!
    const bytes = der(honest.certificateChain[0]!)
    for (let at = 0; at < bytes.length; at++) {
      const changed = Buffer.from(bytes)
      changed[at] = (changed[at] ?? 0) ^ 0x41
      const certificate = pem('CERTIFICATE', changed)
      const bent = {
        ...honest,
        certificateChain: [certificate],
        certificateId: certificateIdOf(certificate),
      }
      const body = Buffer.from(JSON.stringify(bent))
      const reply = { status: 200, headers: { 'content-type': json }, body }
      const outcome = await attempt(store, { send: async () => reply })
      if (outcome instanceof CertvendError) continue
      expect(Number.isNaN(outcome.notAfter.getTime()), `byte ${at}`).toBe(false)
      expect(Number.isNaN(outcome.notBefore.getTime()), `byte ${at}`).toBe(false)
      forget(store)
    }
  })
})

/** Makes the store as if what was issued had never come, with the same key. */
function forget(store: CredentialStore): void {
  const home = path.join(store.directory, 'current')
  fs.rmSync(path.join(home, 'credential.json'))
  fs.renameSync(home, path.join(store.directory, 'pending'))
  store.reload()
}
