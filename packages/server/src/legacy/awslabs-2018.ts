/**
 * awslabs/aws-iot-certificate-vending-machine of 2018: `GET …/getcert?serialNumber&deviceToken`.
 *
 * Its API answered 200 to everything, so every status here is 200: a client that looked at it would
 * notice the difference. A refusal is a JSON string, or `null` where no certificate could be made,
 * which its clients know as "vended already".
 */
import type { ProblemCode } from '@certvend/client/wire'
import { askedBy, createdKeys, honest, json, type LegacyDialect, only } from './dialect.ts'

const denied = 'Access Deny!'
const registryFailed = 'Identical serial number error!'

const texts: Partial<Record<ProblemCode, string>> = {
  'malformed-request': denied,
  'claim-refused': denied,
  'device-disabled': denied,
  'too-many-attempts': denied,
  busy: registryFailed,
}

export const awslabs2018: LegacyDialect = {
  name: 'awslabs-2018',
  path: '/getcert',
  method: 'GET',
  certificates: 5,
  read: ({ query }) => askedBy(only(query, 'serialNumber'), only(query, 'deviceToken')),
  direct: ['serialNumber', 'deviceToken'],
  accept: (vended) => json(200, { ...createdKeys(vended), RootCA: vended.rootCa }),
  refuse: (code) => json(200, texts[code] ?? null),
  // API Gateway's own words for a method that was not deployed.
  turnAway: () => json(honest('method-not-allowed'), { message: 'Missing Authentication Token' }),
}
