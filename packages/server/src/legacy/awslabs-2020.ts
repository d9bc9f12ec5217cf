/**
 * awslabs/aws-iot-certificate-vending-machine of 2020: `GET …/getcert?serialNumber&deviceToken`, the
 * same names in a JSON body over those of the query.
 *
 * It answered every refusal with 500 and one of four texts. The texts stay; the status says what
 * happened, since its clients tell a certificate from a text by the shape or by 200 alone.
 */
import type { ProblemCode } from '@certvend/client/wire'
import { askedBy, createdKeys, honest, json, type LegacyDialect, members, only } from './dialect.ts'

const denied = 'Access Denied'

const texts: Partial<Record<ProblemCode, string>> = {
  'malformed-request': 'Service error',
  'claim-refused': denied,
  'device-disabled': denied,
  'too-many-attempts': denied,
  'claim-spent': denied,
  busy: 'Service error',
  'method-not-allowed': 'Bad Request',
  'not-found': 'Bad Request',
}

export const refuse2020: LegacyDialect['refuse'] = (code) => ({
  status: honest(code),
  contentType: 'text/plain',
  body: texts[code] ?? 'Error issuing certificate!',
})

/** Who asks, at `/getcert` and at `/shadow`. */
export const read2020: LegacyDialect['read'] = ({ query, body }) => {
  const over = members(body)
  return askedBy(
    over.serialNumber ?? only(query, 'serialNumber'),
    over.deviceToken ?? only(query, 'deviceToken'),
  )
}

export const awslabs2020: LegacyDialect = {
  name: 'awslabs-2020',
  path: '/getcert',
  method: 'GET',
  certificates: 5,
  read: read2020,
  accept: (vended) => json(200, { ...createdKeys(vended), RootCA: vended.rootCa }, '\t'),
  refuse: refuse2020,
  turnAway: () => refuse2020('method-not-allowed'),
}
