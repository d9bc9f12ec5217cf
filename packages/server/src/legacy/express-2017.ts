/**
 * The Express and MySQL ancestor of 2017: `POST /` over plain HTTP with `seriaNum` (sic) and
 * `accessToken`, as a form or as JSON.
 *
 * **Whoever is on the path reads the private key and can forge the answer.** That is how these devices
 * ask; nothing here can mend it. It has its own listener, on loopback unless told otherwise.
 *
 * It never answered whom it refused: its clients waited for ever. They now hear the code that was
 * meant for the case, with an honest status, which none of them has ever seen.
 */
import type { ProblemCode } from '@certvend/client/wire'
import {
  askedBy,
  createdKeys,
  honest,
  json,
  type LegacyAnswer,
  type LegacyDialect,
  members,
  only,
} from './dialect.ts'

const verified = '20020'
const applied = '40010'
const denied = '40030'
const failed = '50010'

const codes: Partial<Record<ProblemCode, string>> = {
  'claim-refused': denied,
  'too-many-attempts': denied,
  'device-disabled': denied,
  'certificate-revoked': denied,
  'claim-spent': applied,
}

/** Express's way to send a text, or an object. */
const text = (status: number, body: string): LegacyAnswer => ({
  status,
  contentType: 'text/html; charset=utf-8',
  body,
})
const object = (status: number, value: unknown): LegacyAnswer => ({
  ...json(status, value),
  contentType: 'application/json; charset=utf-8',
})

export const express2017: LegacyDialect = {
  name: 'express-2017',
  path: '/',
  method: 'POST',
  certificates: 5,
  read({ headers, body }) {
    const type = headers.get('content-type') ?? ''
    if (/^application\/json\b/i.test(type)) {
      const { seriaNum, accessToken } = members(body)
      // A serial was a number in the database, and may be one in JSON.
      return askedBy(typeof seriaNum === 'number' ? String(seriaNum) : seriaNum, accessToken)
    }
    const form = new URLSearchParams(body)
    return askedBy(only(form, 'seriaNum'), only(form, 'accessToken'))
  },
  accept: (vended) =>
    object(200, { rootCA: vended.rootCa, conCheck: verified, certdata: createdKeys(vended) }),
  refuse: (code) =>
    code === 'malformed-request'
      ? text(200, 'Invalid requset!')
      : object(honest(code), { conCheck: codes[code] ?? failed }),
  turnAway: (method) =>
    method === 'GET' ? text(200, 'Access Deny!') : text(honest('method-not-allowed'), ''),
}
