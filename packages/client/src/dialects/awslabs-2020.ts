/**
 * awslabs/aws-iot-certificate-vending-machine since 2019: 500 for every refusal, and every accepted
 * request destroys the certificate of the one before.
 */

import { gatewayRefusal, gatewayRefusals } from './api-gateway.ts'
import { awslabsRequest, awslabsVended, claimHint } from './awslabs.ts'
import type { DialectOptions } from './choice.ts'
import type { Dialect, Refusal } from './dialect.ts'
import { find, textOf } from './reply.ts'

const reset =
  'in IoT Core detach and delete the policy {serial}, set to INACTIVE and delete every certificate attached to the thing {serial} (aws iot list-thing-principals --thing-name {serial}), detaching whatever else is attached to them; in the DynamoDB table (deviceInfo by default) remove certinfo from item serialNumber={serial}'

const refusals: readonly Refusal[] = [
  {
    said: 'Access Denied',
    means: 'unknown serial, wrong token, or none',
    code: 'ERR_CLAIM_REFUSED',
    hint: claimHint,
    leaves: 'nothing',
  },
  {
    said: 'Service error',
    means: 'DynamoDB could not be asked',
    code: 'ERR_SERVER_BUSY',
    leaves: 'nothing',
  },
  {
    said: 'Error issuing certificate!',
    means:
      'AWS IoT, DynamoDB or the fetching of the root CA failed after the token was accepted; what was half done makes every later request fail',
    code: 'ERR_REQUEST_REFUSED',
    hint: `look into the log of the function; if it goes on, ${reset}`,
    leaves: 'something',
  },
  {
    said: 'Bad Request',
    means:
      'the path that reached the function is not exactly /getcert, as below a base path mapping',
    code: 'ERR_REQUEST_REFUSED',
    hint: 'give the URL of the API itself, https://API.execute-api.REGION.amazonaws.com/STAGE, without a base path of a custom domain',
    leaves: 'nothing',
  },
  ...['"Access Deny!"', 'null'].map(
    (said): Refusal => ({
      said,
      means: 'this is a vending machine of 2018, which must be asked otherwise',
      code: 'ERR_REQUEST_REFUSED',
      hint: 'set the dialect to awslabs-2018: each further request may leave a certificate that nobody holds',
      leaves: 'something',
    }),
  ),
  {
    said: 'Can not get Amazon root CA certificate! ',
    means: 'the root CA could not be fetched, after the certificate was made',
    code: 'ERR_SERVER_BUSY',
    leaves: 'something',
  },
]

export const awslabs2020 = (options: DialectOptions): Dialect => ({
  name: 'awslabs-2020',
  repeat: 'replaces',
  keyOrigin: 'server',
  reset,
  refusals: [...refusals, ...gatewayRefusals],
  request: awslabsRequest,
  recognise: (response) =>
    find(refusals, textOf(response), response.status) ?? gatewayRefusal(response),
  read: (response, reading) => awslabsVended(response, reading, options),
})
