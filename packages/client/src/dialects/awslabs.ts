/**
 * What both generations of awslabs/aws-iot-certificate-vending-machine share: the request, and the
 * success, which is the answer of `CreateKeysAndCertificate` with one key more.
 *
 * @see https://docs.aws.amazon.com/iot/latest/apireference/API_CreateKeysAndCertificate.html
 */
import * as v from 'valibot'
import type { SendRequest, SendResponse } from '../send.ts'
import type { DialectOptions } from './choice.ts'
import type { Ask, Reading, Vended } from './dialect.ts'
import { asked, Certificate, Key, shaped } from './reply.ts'

const Success = v.object({
  certificateId: v.optional(v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))),
  certificatePem: Certificate,
  keyPair: v.object({ PrivateKey: Key }),
})

/** The token stands in the URL: nothing may log, quote or forward it. */
export function awslabsRequest({ url, claim }: Ask): SendRequest {
  const target = asked(url, '/getcert')
  target.searchParams.set('serialNumber', claim.deviceSerial)
  target.searchParams.set('deviceToken', claim.token)
  return {
    method: 'GET',
    url: target,
    secretUrl: true,
    headers: { accept: 'application/json' },
  }
}

/** `RootCA` beside it is not read: it came from the internet, unchecked, and from whoever answers. */
export function awslabsVended(
  response: SendResponse,
  reading: Reading,
  { endpoint, thingName = reading.deviceSerial }: DialectOptions,
): Vended {
  const { certificateId, certificatePem, keyPair } = shaped(Success, response, reading)
  return {
    thingName,
    ...(certificateId === undefined ? {} : { certificateId }),
    certificateChain: [certificatePem],
    privateKey: keyPair.PrivateKey,
    endpoint: endpoint!,
  }
}

/** What to look at in the table. */
export const claimHint =
  'check item serialNumber={serial} of the DynamoDB table (deviceInfo by default): it must exist, and its deviceToken must be this token'
