/** The certificate in a reply, judged: one that does not fit is refused, and the key is kept. */
import { HttpResponse } from 'msw'
import { beforeAll, describe, expect, it } from 'vitest'
import { authorities, bent, json, made, refusalOf, stranger } from './attempt.ts'
import { type Certified, certificateIdOf, certify, der, farAhead, pem, yesteryear } from './pki.ts'
import type { Respond } from './vending-machine.ts'

let impostor: Certified
/** The device CA's key under another name. */
let renamed: Certified

beforeAll(async () => {
  impostor = await certify('Device CA', { ca: true })
  renamed = await certify('Renamed CA', { ca: true, keys: authorities.deviceCa.keys })
})

describe('a certificate that does not fit', () => {
  const otherKey: Respond = async (order, machine) => {
    const { certificate } = await certify('device-1', { issuer: authorities.deviceCa })
    const reply = await machine.honest(order)
    return HttpResponse.json({
      ...reply,
      certificateChain: [certificate],
      certificateId: certificateIdOf(certificate),
    })
  }
  const chainOf = (...more: (() => Certified)[]): Respond =>
    bent((reply) => {
      reply.certificateChain.push(...more.map((one) => one().certificate))
    })

  it.each<readonly [string, Respond, RegExp]>([
    ['for another key', otherKey, /another key/],
    [
      'for another device serial',
      bent((r) => ({ ...r, deviceSerial: 'device-2' })),
      /another device serial/,
    ],
    ['that is a CA', made({ ca: true }), /CA:TRUE/],
    ['that has expired', made({ notAfter: yesteryear }), /expired on 2021-01-01/],
    ['with a foreign CA behind it', chainOf(() => stranger), /did not issue/],
    [
      'with a CA of the right key and another name behind it',
      chainOf(() => renamed),
      /did not issue/,
    ],
    [
      'with a CA of the right name and another key behind it',
      chainOf(() => impostor),
      /did not issue/,
    ],
    [
      'with a foreign CA at the end of the chain',
      chainOf(
        () => authorities.deviceCa,
        () => stranger,
      ),
      /certificate 3 .* did not issue/,
    ],
    [
      'behind its issuer',
      bent((r) => ({
        ...r,
        certificateChain: [authorities.deviceCa.certificate, ...r.certificateChain],
      })),
      /another key/,
    ],
    [
      'with the certificateId of another',
      bent((r) => ({ ...r, certificateId: '0'.repeat(64) })),
      /certificateId/,
    ],
  ])('is refused: one %s', async (_title, respond, message) => {
    const error = await refusalOf(respond)
    expect(error).toMatchObject({ code: 'ERR_CERTIFICATE_MISMATCH', remedy: 'operator' })
    expect(error.message).toMatch(message)
  })

  it('is a matter of the clock when it is not valid yet', async () => {
    const error = await refusalOf(made({ notBefore: new Date('2048-01-01'), notAfter: farAhead }))
    expect(error).toMatchObject({ code: 'ERR_CLOCK', remedy: 'retry' })
    expect(error.message).toMatch(/2048-01-01.*2027-03-01/)
  })

  it('is refused when its dates are not dates', async () => {
    const garbled: Respond = async (order, machine) => {
      const reply = await machine.honest(order)
      const bytes = der(reply.certificateChain[0] ?? '')
      const at = bytes.indexOf('490101000000Z') // notAfter as UTCTime
      expect(at).toBeGreaterThan(0)
      bytes.write('49XX01000000Z', at)
      const certificate = pem('CERTIFICATE', bytes)
      return HttpResponse.json({
        ...reply,
        certificateChain: [certificate],
        certificateId: certificateIdOf(certificate),
      })
    }
    const error = await refusalOf(garbled)
    expect(['ERR_CERTIFICATE_MISMATCH', 'ERR_REPLY_MALFORMED']).toContain(error.code)
  })

  it('does not hide behind a duplicate member: the last one counts, and is judged', async () => {
    const twice: Respond = async (order, machine) => {
      const honest = await machine.honest(order)
      const { certificate } = await certify('device-1', { issuer: authorities.deviceCa })
      const text = JSON.stringify(honest).replace(
        /}$/,
        `,"certificateChain":${JSON.stringify([certificate])}}`,
      )
      return new HttpResponse(text, { headers: { 'content-type': json } })
    }
    expect((await refusalOf(twice)).code).toBe('ERR_CERTIFICATE_MISMATCH')
  })
})
