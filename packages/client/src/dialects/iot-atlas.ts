/** aws/iot-atlas and its CDK packaging: 200 for everything, the status in the body, one answer per device. */
import * as v from 'valibot'
import { createEndpoint } from '../endpoint.ts'
import { gatewayRefusal, gatewayRefusals, isLambdaError, lambdaError } from './api-gateway.ts'
import type { DialectOptions } from './choice.ts'
import type { Dialect, Refusal } from './dialect.ts'
import { asked, Certificate, find, jsonOf, Key, malformed, member, shaped } from './reply.ts'

const Success = v.object({
  payload: v.object({
    endpoint: v.string(),
    thing_name: v.string(),
    certificates: v.object({ device_certificate: Certificate }),
    keyPair: v.object({ privateKey: Key }),
  }),
})

const row = 'item device_uid={serial} of the DynamoDB table (DeviceProvisioningInfoDB by default)'
const reset = `in IoT Core delete the thing (thing_{serial} by default) with the certificates attached to it, and those made since without a thing; in ${row} set is_registered to the number 0 and remove iot_core_thing_name and iot_core_registered_on`

const half = (said: string, means: string): Refusal => ({
  said,
  means,
  code: 'ERR_REQUEST_REFUSED',
  hint: `look into the log of the function, then ${reset}`,
  leaves: 'something',
})

const refusals: readonly Refusal[] = [
  {
    said: 'Device not found',
    means: 'unknown serial',
    code: 'ERR_CLAIM_REFUSED',
    hint: `make ${row}`,
    leaves: 'nothing',
  },
  {
    said: 'Device token is not valid',
    means: 'wrong token, or made by the other formula',
    code: 'ERR_CLAIM_REFUSED',
    hint: `compare with device_token in ${row}; a token made of a salt has two formulas, SHA-256 of salt//serial and HMAC-SHA256`,
    leaves: 'nothing',
  },
  {
    said: "Device isn't enabled",
    means: 'is_enabled is 0',
    code: 'ERR_CLAIM_REFUSED',
    hint: `set is_enabled to the number 1 in ${row}`,
    leaves: 'nothing',
  },
  {
    said: 'Device is already registered',
    means: 'a certificate was vended before; its answer is given once only',
    code: 'ERR_CLAIM_SPENT',
    hint: reset,
    leaves: 'nothing',
  },
  {
    said: 'Missing input data',
    means: 'the function did not find what was sent',
    code: 'ERR_REQUEST_REFUSED',
    hint: 'the API must hand the body to the function as it is (no Lambda proxy integration)',
    leaves: 'nothing',
  },
  {
    said: 'Device database access error',
    means: 'DynamoDB could not be asked',
    code: 'ERR_SERVER_BUSY',
    leaves: 'nothing',
  },
  {
    said: 'Unable to create device certificates',
    means: 'AWS IoT made no certificate',
    code: 'ERR_SERVER_BUSY',
    leaves: 'nothing',
  },
  half('Unable to attach policy to the certificate', 'the policy is missing, or AWS IoT failed'),
  half('Unable to create thing', 'a thing is left from an earlier attempt, or AWS IoT failed'),
  half('Unable to attach certificate to the device', 'AWS IoT failed after the thing was made'),
  half(
    'Unable to download root CA',
    'the root CA could not be fetched, after the certificate was made',
  ),
  half(
    'Database error during device record update',
    'DynamoDB failed after the certificate was made',
  ),
  half('Device info couldnt updated.', 'DynamoDB failed after the certificate was made'),
  half(
    'Error while getting IoT Core endpoint',
    'AWS IoT failed after the device was marked as registered',
  ),
  half(
    'Invalid IoT Core endpoint response',
    'AWS IoT failed after the device was marked as registered',
  ),
]

export const iotAtlas = ({ endpoint }: DialectOptions): Dialect => ({
  name: 'iot-atlas',
  repeat: 'never',
  keyOrigin: 'server',
  reset,
  refusals: [...refusals, lambdaError, ...gatewayRefusals],
  request: ({ url, claim }) => ({
    method: 'POST',
    url: asked(url, '/registration'),
    headers: { accept: 'application/json', 'content-type': 'application/json' },
    body: JSON.stringify({ device_uid: claim.deviceSerial, device_token: claim.token }),
  }),
  recognise(response) {
    const json = jsonOf(response)
    if (isLambdaError(json)) return lambdaError
    const said = member(member(json, 'payload'), 'message')
    return typeof said === 'string'
      ? find(refusals, said, response.status)
      : gatewayRefusal(response)
  },
  read(response, reading) {
    const { payload } = shaped(Success, response, reading)
    return {
      thingName: payload.thing_name,
      certificateChain: [payload.certificates.device_certificate],
      privateKey: payload.keyPair.privateKey,
      endpoint: endpoint ?? served(payload.endpoint),
    }

    /** IoT Core's name for the account; Amazon's anchors vouch for it, and no `root_ca` that was served. */
    function served(host: string) {
      try {
        return createEndpoint(host)
      } catch {
        throw malformed(response, reading, 'payload.endpoint is no host')
      }
    }
  },
})
