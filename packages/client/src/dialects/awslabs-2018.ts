/** awslabs/aws-iot-certificate-vending-machine until 2019: 200 for everything, and one answer per device. */

import { gatewayRefusal, gatewayRefusals, isLambdaError, lambdaError } from './api-gateway.ts'
import { awslabsRequest, awslabsVended, claimHint } from './awslabs.ts'
import type { DialectOptions } from './choice.ts'
import type { Dialect, Refusal } from './dialect.ts'
import { find, jsonOf } from './reply.ts'

const reset =
  'in IoT Core detach and delete the policy {serial}, set to INACTIVE and delete every certificate attached to the thing {serial} (aws iot list-thing-principals --thing-name {serial}) and those made since without a policy, delete the thing {serial}; in the DynamoDB table (deviceInfo by default) remove certinfo from item serialNumber={serial}'

const refusals: readonly Refusal[] = [
  {
    said: 'Access Deny!',
    means: 'unknown serial, or wrong token',
    code: 'ERR_CLAIM_REFUSED',
    hint: claimHint,
    leaves: 'nothing',
  },
  {
    said: 'Service error: 500!',
    means: 'DynamoDB could not be asked',
    code: 'ERR_SERVER_BUSY',
    leaves: 'nothing',
  },
  {
    said: 'Identical serial number error!',
    means: 'DynamoDB could not be asked, or not be written to after the certificate was made',
    code: 'ERR_REQUEST_REFUSED',
    hint: reset,
    leaves: 'something',
  },
  {
    said: 'Can not get Get VeriSign Class 3 Public Primary G5 root CA certificate! ',
    means: 'the root CA could not be fetched, after the certificate was made',
    code: 'ERR_REQUEST_REFUSED',
    hint: reset,
    leaves: 'something',
  },
  {
    said: 'null',
    means:
      'a certificate was vended before, or AWS IoT failed; each such request leaves an ACTIVE certificate that nobody holds',
    code: 'ERR_CLAIM_SPENT',
    hint: reset,
    leaves: 'something',
  },
  {
    said: "{error:'Device Already Exists'}",
    means: 'a certificate was vended before (a fork)',
    code: 'ERR_CLAIM_SPENT',
    hint: reset,
    leaves: 'something',
  },
  {
    said: 'Device is already activated.',
    means: 'a certificate was vended before (a branch)',
    code: 'ERR_CLAIM_SPENT',
    hint: `${reset}, and set isActivated to false`,
    leaves: 'nothing',
  },
  {
    said: 'Device is disabled. Enable it to activate.',
    means: 'isEnabled is false (a branch)',
    code: 'ERR_CLAIM_REFUSED',
    hint: 'set isEnabled to true in item serialNumber={serial} of the DynamoDB table',
    leaves: 'nothing',
  },
]

export const awslabs2018 = (options: DialectOptions): Dialect => ({
  name: 'awslabs-2018',
  repeat: 'never',
  keyOrigin: 'server',
  reset,
  refusals: [...refusals, lambdaError, ...gatewayRefusals],
  request: awslabsRequest,
  recognise(response) {
    const json = jsonOf(response)
    if (isLambdaError(json)) return lambdaError
    const said = json === null ? 'null' : typeof json === 'string' ? json : undefined
    return find(refusals, said, response.status) ?? gatewayRefusal(response)
  },
  read: (response, reading) => awslabsVended(response, reading, options),
})
