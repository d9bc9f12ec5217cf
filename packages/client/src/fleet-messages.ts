/**
 * AWS IoT's Fleet Provisioning MQTT API in JSON: topics, shapes, and what a rejection means. No I/O.
 *
 * @see https://docs.aws.amazon.com/iot/latest/developerguide/fleet-provision-api.html
 */
import * as v from 'valibot'
import { CertvendError } from './errors.ts'
import { isThingName } from './wire.ts'

/** CreateCertificateFromCsr; `/accepted` and `/rejected` follow. */
export const createTopic = '$aws/certificates/create-from-csr/json'
/** RegisterThing; `/accepted` and `/rejected` follow. */
export const registerTopic = (templateName: string): string =>
  `$aws/provisioning-templates/${templateName}/provision/json`

const templateNamePattern = /^[0-9A-Za-z_-]{1,36}$/
export const isTemplateName = (value: unknown): value is string =>
  typeof value === 'string' && templateNamePattern.test(value)

const Created = v.object({
  certificateId: v.string(),
  certificatePem: v.string(),
  certificateOwnershipToken: v.pipe(v.string(), v.minLength(1)),
})
const Registered = v.object({
  thingName: v.pipe(
    v.string(),
    v.check((name) => isThingName(name), 'not a thing name'),
  ),
  deviceConfiguration: v.optional(v.record(v.string(), v.string()), {}),
})
const Rejected = v.object({
  statusCode: v.optional(v.number(), 0),
  errorCode: v.optional(v.string(), ''),
  errorMessage: v.optional(v.string(), ''),
})

/** CreateCertificateFromCsr's answer. The token is a secret. */
export type Created = v.InferOutput<typeof Created>
/** RegisterThing's answer. */
export type Registered = v.InferOutput<typeof Registered>

const largestPayload = 128 * 1024 // IoT Core's own limit

function read<T>(schema: v.GenericSchema<unknown, T>, payload: Uint8Array, what: string): T {
  const malformed = (reason: string): CertvendError =>
    new CertvendError('ERR_REPLY_MALFORMED', `the answer to ${what} is not as agreed: ${reason}`, {
      hint: 'something other than Fleet Provisioning answers on its topics; check the endpoint',
    })
  if (payload.length > largestPayload) throw malformed('too large')
  let json: unknown
  try {
    json = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(payload))
  } catch {
    throw malformed('not JSON')
  }
  const result = v.safeParse(schema, json)
  if (result.success) return result.output
  const path = v.getDotPath(result.issues[0]) ?? 'the answer'
  throw malformed(`${path} is missing or of another kind`)
}

/** @throws {CertvendError} `ERR_REPLY_MALFORMED` */
export const readCreated = (payload: Uint8Array): Created =>
  read(Created, payload, 'CreateCertificateFromCsr')
/** @throws {CertvendError} `ERR_REPLY_MALFORMED` */
export const readRegistered = (payload: Uint8Array): Registered =>
  read(Registered, payload, 'RegisterThing')

const tokenRefused = 'InvalidCertificateOwnershipToken'

/** Whether a rejection says that the ownership token is spent, expired or was never given. */
export const refusesToken = (payload: Uint8Array): boolean =>
  read(Rejected, payload, 'RegisterThing').errorCode === tokenRefused

/** Printable ASCII of the server's words, capped, without the secret that it may echo. */
const quote = (text: string, secret: string): string =>
  (secret ? text.replaceAll(secret, '[redacted]') : text)
    .replace(/[^\x20-\x7e]+/g, ' ')
    .slice(0, 200)

/**
 * What a rejection means for the device.
 *
 * @param operation as AWS calls it, for messages.
 * @param secret left out of every message, whatever the server echoes.
 */
export function rejection(
  payload: Uint8Array,
  { operation, secret }: { operation: string; secret: string },
): CertvendError {
  const { statusCode, errorCode, errorMessage } = read(Rejected, payload, operation)
  const code = quote(errorCode, secret).replace(/[^\w.-]/g, '') || 'no code'
  const message = `${operation} was rejected: ${quote(errorMessage, secret) || 'without a reason'} (${code}, ${statusCode})`
  if (code === tokenRefused)
    return new CertvendError('ERR_REQUEST_REFUSED', message, {
      remedy: 'retry',
      hint: 'the ownership token lives one hour and serves once; the next attempt asks for a new certificate with the same key',
    })
  if (statusCode === 429 || /throttl|toomanyrequests|limitexceeded/i.test(code))
    return new CertvendError('ERR_SERVER_BUSY', message, {
      hint: "the account's Fleet Provisioning quota is used up for the moment; nothing is wrong with this device",
    })
  if (statusCode >= 500 || /^(InternalFailure|InternalError|ServiceUnavailable)/.test(code))
    return new CertvendError('ERR_SERVER_BUSY', message, {
      hint: 'AWS IoT failed inside; the same request is made again',
    })
  if (
    statusCode === 401 ||
    statusCode === 403 ||
    /access_?denied|unauthorized|forbidden/i.test(code)
  )
    return new CertvendError('ERR_CLAIM_REFUSED', message, {
      hint: "the template's pre-provisioning hook refused this device, failed, or took more than 5 s, or the claim's template may not be used; look at the hook's log for this serial",
    })
  if (statusCode === 409 || /conflict|alreadyexists/i.test(code))
    return new CertvendError('ERR_CLAIM_SPENT', message, {
      hint: "the thing exists already and the template's overrideSettings say FAIL; was this device provisioned before?",
    })
  return new CertvendError('ERR_REQUEST_REFUSED', message, {
    hint: 'look at the template: its name, whether it is enabled, its parameters and its provisioning role',
  })
}
