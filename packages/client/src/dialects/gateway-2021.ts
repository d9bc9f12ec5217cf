/** u93/aws-iot-certificate-vending-machine: a token that a fleet shares, and one answer per thing. */
import * as v from 'valibot'
import { gatewayRefusal, gatewayRefusals } from './api-gateway.ts'
import type { DialectOptions } from './choice.ts'
import type { Dialect, Refusal } from './dialect.ts'
import { asked, Certificate, find, jsonOf, Key, member, shaped } from './reply.ts'

const Success = v.object({
  certificateData: v.object({
    pem: Certificate,
    key_pair: v.object({ private_key: Key }),
  }),
})

const reset =
  'in IoT Core set to INACTIVE and delete the certificates attached to the thing {serial} (aws iot list-thing-principals --thing-name {serial}), and delete the thing {serial}'

const tokenHint =
  'the fleet token must be in the list of valid tokens (a parameter of the authorizer in SSM), and the authorization scheme before it the one that the authorizer expects (DeviceToken by default)'

const refusals: readonly Refusal[] = [
  {
    said: 'Thing exists in the AWS IoT Account, exiting...',
    means: 'a certificate was vended before, or the thing was made by other means',
    code: 'ERR_CLAIM_SPENT',
    hint: reset,
    leaves: 'nothing',
  },
  {
    said: 'Error registering thing agent in AWS IoT',
    means: 'AWS IoT failed, perhaps after the thing was made',
    code: 'ERR_REQUEST_REFUSED',
    hint: `look into the log of the function, then ${reset}`,
    leaves: 'something',
  },
  {
    said: 'Uncaught error...',
    means: 'the function failed, perhaps after it had issued',
    code: 'ERR_REQUEST_REFUSED',
    hint: `look into the log of the function, then ${reset}`,
    leaves: 'something',
  },
]

const authorizer: readonly Refusal[] = [
  {
    said: 'Unauthorized',
    status: 401,
    means: 'no token, as the authorizer reads the header',
    code: 'ERR_CLAIM_REFUSED',
    hint: tokenHint,
    leaves: 'nothing',
  },
  {
    said: 'Forbidden',
    status: 403,
    means: 'the authorizer refuses the token, or API Gateway has no such stage',
    code: 'ERR_CLAIM_REFUSED',
    hint: tokenHint,
    leaves: 'nothing',
  },
  ...[
    'User is not authorized to access this resource',
    'User is not authorized to access this resource with an explicit deny',
  ].map(
    (said): Refusal => ({
      said,
      status: 403,
      means: 'the authorizer refuses the token',
      code: 'ERR_CLAIM_REFUSED',
      hint: tokenHint,
      leaves: 'nothing',
    }),
  ),
]

/** `version` is what the old devices said of their firmware; the function stores it and asks nothing of it. */
export const gateway2021 = ({
  endpoint,
  thingName,
  authorizationScheme = 'DeviceToken',
}: DialectOptions): Dialect => ({
  name: 'gateway-2021',
  repeat: 'never',
  keyOrigin: 'server',
  reset,
  refusals: [
    ...refusals,
    ...authorizer,
    ...gatewayRefusals.filter(({ said }) => said !== 'Forbidden'),
  ],
  request: ({ url, claim }) => ({
    method: 'POST',
    url: asked(url, '/register'),
    headers: {
      accept: 'application/json',
      authorization: `${authorizationScheme} ${claim.token}`,
      'content-type': 'application/json',
    },
    body: JSON.stringify({ thingName: thingName ?? claim.deviceSerial, version: '1' }),
  }),
  recognise(response) {
    const json = jsonOf(response)
    const said = member(json, 'error')
    if (typeof said === 'string') return find(refusals, said, response.status)
    const message = member(json, 'message') ?? member(json, 'Message')
    return typeof message === 'string'
      ? (find(authorizer, message, response.status) ?? gatewayRefusal(response))
      : undefined
  },
  read(response, reading) {
    const { certificateData } = shaped(Success, response, reading)
    return {
      thingName: thingName ?? reading.deviceSerial,
      certificateChain: [certificateData.pem],
      privateKey: certificateData.key_pair.private_key,
      endpoint: endpoint!,
    }
  },
})
