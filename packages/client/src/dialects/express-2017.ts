/**
 * cncoder/Certificate-Vending-Machine: Express and MySQL on one host, over plain HTTP, and silent
 * towards whom it refuses.
 *
 * Whoever is on the way reads the token and the private key, and can put others in their place. It
 * may therefore stand behind HTTPS with a pin, as every other; `docs/dialects.md` says what to make
 * of it where it cannot.
 */
import * as v from 'valibot'
import type { DialectOptions } from './choice.ts'
import type { Dialect, Refusal } from './dialect.ts'
import { Certificate, find, jsonOf, Key, member, shaped, textOf } from './reply.ts'

const Success = v.object({
  certdata: v.object({
    certificateId: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))),
    certificatePem: Certificate,
    keyPair: v.object({ PrivateKey: Key }),
  }),
})

const row = "row seriaNum = '{serial}' of the MySQL table product"

const refusals: readonly Refusal[] = [
  {
    said: '40010',
    means: 'applyState is not 1: not to be vended, or not again',
    code: 'ERR_CLAIM_SPENT',
    hint: `set applyState to 1 in the ${row}`,
    leaves: 'nothing',
  },
  {
    said: '40030',
    means: 'denied',
    code: 'ERR_CLAIM_REFUSED',
    hint: `look at the ${row}: serial, accessToken and applyState`,
    leaves: 'nothing',
  },
  {
    said: '40090',
    means: 'wrong token',
    code: 'ERR_CLAIM_REFUSED',
    hint: `compare with accessToken in the ${row}`,
    leaves: 'nothing',
  },
  {
    said: '50010',
    means: 'MySQL or AWS IoT failed',
    code: 'ERR_SERVER_BUSY',
    leaves: 'something',
  },
  {
    said: 'Invalid requset!',
    means: 'no serial was found in the request',
    code: 'ERR_REQUEST_REFUSED',
    leaves: 'nothing',
  },
  {
    said: 'Access Deny!',
    means: 'asked by another method than POST',
    code: 'ERR_REQUEST_REFUSED',
    leaves: 'nothing',
  },
]

export const express2017 = ({ endpoint, thingName }: DialectOptions): Dialect => ({
  name: 'express-2017',
  // Every answer is another certificate, and none goes by it.
  repeat: 'safe',
  keyOrigin: 'server',
  refusals,
  request: ({ url, claim }) => ({
    method: 'POST',
    url: new URL(url),
    headers: { accept: 'application/json', 'content-type': 'application/x-www-form-urlencoded' },
    body: new URLSearchParams({
      accessToken: claim.token,
      seriaNum: claim.deviceSerial,
    }).toString(),
  }),
  recognise(response) {
    const json = jsonOf(response)
    if (json === undefined) return find(refusals, textOf(response)?.trim(), response.status)
    const code = member(json, 'conCheck')
    return typeof code === 'number' || typeof code === 'string'
      ? find(refusals, String(code), response.status)
      : undefined
  },
  read(response, reading) {
    const { certdata } = shaped(Success, response, reading)
    return {
      thingName: thingName ?? reading.deviceSerial,
      ...(certdata.certificateId === undefined ? {} : { certificateId: certdata.certificateId }),
      certificateChain: [certdata.certificatePem],
      privateKey: certdata.keyPair.PrivateKey,
      endpoint: endpoint!,
    }
  },
})
