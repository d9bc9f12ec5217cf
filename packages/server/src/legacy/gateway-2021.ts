/**
 * The registration gateway of 2021: `POST …/register` with `thingName` and `version`, and
 * `Authorization: <scheme> <token>`, where the token was one for a whole fleet.
 *
 * Whoever holds one device of such a fleet holds its token. So it opens only the rows that were
 * registered for that fleet, and each of them once: nobody who asks a second time is given a
 * certificate, were it the device itself. A token of the device's own is taken as well.
 */
import { type ProblemCode, problems } from '@certvend/client/wire'
import { askedBy, json, type LegacyDialect, members } from './dialect.ts'

const exists = 'Thing exists in the AWS IoT Account, exiting...'

const bodies: Partial<Record<ProblemCode, unknown>> = {
  'malformed-request': { status: false, error: 'Uncaught error...' },
  // The three are API Gateway's own words, around its authorizer.
  'claim-refused': { message: 'Unauthorized' },
  'device-disabled': { Message: 'User is not authorized to access this resource' },
  'too-many-attempts': { message: 'Too Many Requests' },
  'claim-spent': { status: false, error: exists },
}

export const gateway2021: LegacyDialect = {
  name: 'gateway-2021',
  path: '/register',
  method: 'POST',
  certificates: 1,
  fleet: true,
  read({ headers, body }) {
    const [, token] = /^[^\s]+ +(\S+)$/.exec(headers.get('authorization') ?? '') ?? []
    return askedBy(members(body).thingName, token)
  },
  accept: ({ certificatePem, keyPair, rootCa }) =>
    json(200, {
      certificateData: {
        pem: certificatePem,
        key_pair: { public_key: keyPair.publicKey, private_key: keyPair.privateKey },
      },
      rootCa,
    }),
  refuse: (code) => ({
    ...json(
      problems[code],
      bodies[code] ?? { status: false, error: 'Error registering thing agent in AWS IoT' },
    ),
    ...(problems[code] === 401 && { headers: { 'www-authenticate': 'DeviceToken' } }),
  }),
  turnAway: (method, now) =>
    method === 'GET' // a ping; seconds
      ? json(200, { response: true, time: Math.round(now.getTime() / 1000) })
      : json(problems['method-not-allowed'], { message: 'Missing Authentication Token' }),
}
