/**
 * AWS credentials for any AWS SDK, from AWS IoT's credentials provider: the device shows its
 * certificate, AWS IoT assumes the role that a role alias points to.
 *
 * One request, asked once; nothing is kept, neither in memory nor on disk.
 *
 * @see https://docs.aws.amazon.com/iot/latest/developerguide/authorizing-direct-aws.html
 */
import * as v from 'valibot'
import { type Clock, systemClock } from './clock.ts'
import type { Credential } from './credential.ts'
import { CertvendError } from './errors.ts'
import type { ProxyOptions } from './proxy.ts'
import { parseRetryAfter } from './retry.ts'
import type { Send, SendResponse } from './send.ts'
import { amazonTrustAnchors, parseTrustAnchors } from './trust.ts'
import { mediaType, quote } from './verdict.ts'

/** Whose temporary AWS credentials are fetched, and where. */
export interface RoleAlias {
  /** As it was created in AWS IoT: 1 to 128 letters, digits and `_=,@-`. */
  readonly name: string
  /**
   * Host name, and a port if it is not 443, of the account's credentials provider:
   * `aws iot describe-endpoint --endpoint-type iot:CredentialProvider`.
   */
  readonly endpoint: string
  /** PEM of the only CAs that may vouch for it. Default: Amazon Root CA 1 and 3. */
  readonly trustAnchors?: string
}

/** What AWS SDKs take as credentials. */
export interface AwsCredentials {
  readonly accessKeyId: string
  /** A secret. A getter, and not enumerable: inspection, JSON and spreading leave it out. */
  readonly secretAccessKey: string
  /** A secret, as {@link AwsCredentials.secretAccessKey}. */
  readonly sessionToken: string
  /** When they end: 15 minutes to 12 hours from now, by the role alias. */
  readonly expiration: Date
}

export interface AwsCredentialsOptions extends ProxyOptions {
  readonly signal?: AbortSignal
  /** For the whole exchange, in milliseconds. Default 30 000. */
  readonly deadlineMs?: number
  readonly clock?: Clock
  /** Default: HTTPS over undici with mutual TLS, loaded when first used. */
  readonly send?: Send
}

const replyBytes = 64 * 1024

/**
 * Gets temporary credentials, asking once.
 *
 * @throws {CertvendError} `ERR_REQUEST_REFUSED` when the thing, the policy or the role does not
 *   allow it (the hint says which), `ERR_CREDENTIAL_EXPIRED`, `ERR_CREDENTIAL_REFUSED`,
 *   `ERR_SERVER_BUSY`, `ERR_REPLY_MALFORMED`, `ERR_REPLY_LOST`, and those of a connection; or the
 *   signal's reason
 * @throws TypeError when the role alias cannot be used, or the key lies in a token, from which
 *   Node's TLS cannot use it
 */
export async function fetchAwsCredentials(
  credential: Credential,
  roleAlias: RoleAlias,
  options: AwsCredentialsOptions = {},
): Promise<AwsCredentials> {
  const { clock = systemClock, signal, deadlineMs = 30_000 } = options
  signal?.throwIfAborted()
  const url = locate(roleAlias)
  const now = clock.now()
  if (credential.notAfter < now)
    throw new CertvendError(
      'ERR_CREDENTIAL_EXPIRED',
      `the certificate expired on ${credential.notAfter.toISOString()}; this device's clock says ${now.toISOString()}`,
    )
  const send = options.send ?? (await channel(credential, roleAlias, options))
  const response = await send(
    {
      method: 'GET',
      url,
      headers: { accept: 'application/json', 'x-amzn-iot-thingname': credential.thingName },
    },
    { deadlineMs, replyBytes, ...(signal ? { signal } : {}) },
  )
  return judge(response, { credential, roleAlias, host: url.host, now: clock.now() })
}

function locate({ name, endpoint }: RoleAlias): URL {
  if (!/^[\w=,@-]{1,128}$/.test(name))
    throw new TypeError('a role alias is 1 to 128 letters, digits and _=,@-')
  const text = `https://${endpoint}/role-aliases/${name}/credentials`
  if (
    !/^[A-Za-z0-9.-]+(:\d{1,5})?$|^\[[0-9A-Fa-f:.]+\](:\d{1,5})?$/.test(endpoint) ||
    !URL.canParse(text)
  )
    throw new TypeError('the endpoint of the credentials provider is host or host:port')
  return new URL(text)
}

async function channel(
  { certificateChain, privateKey }: Credential,
  { trustAnchors }: RoleAlias,
  { proxy, proxyAnchors, clock = systemClock }: AwsCredentialsOptions,
): Promise<Send> {
  const anchors =
    trustAnchors === undefined ? amazonTrustAnchors() : parseTrustAnchors(trustAnchors)
  const identity = { certificateChain, privateKey: privateKey.toPem() }
  const { createSend } = await import('./https.ts')
  return createSend(anchors, clock, {
    identity,
    ...(proxy === undefined ? {} : { proxy }),
    ...(proxyAnchors ? { proxyAnchors } : {}),
  })
}

const ReplySchema = v.object({
  credentials: v.object({
    accessKeyId: v.pipe(v.string(), v.regex(/^\w{16,128}$/)),
    secretAccessKey: v.pipe(v.string(), v.regex(/^[\x21-\x7e]{16,512}$/)),
    sessionToken: v.pipe(v.string(), v.regex(/^[\x21-\x7e]{1,32768}$/)),
    expiration: v.pipe(v.string(), v.isoTimestamp()),
  }),
})

const RefusalSchema = v.object({ message: v.string() })

interface Asked {
  readonly credential: Credential
  readonly roleAlias: RoleAlias
  readonly host: string
  readonly now: Date
}

function judge(response: SendResponse, asked: Asked): AwsCredentials {
  const { status } = response
  const { host, now } = asked
  const body = readJson(response.body)
  if (status === 200) {
    const reply = v.safeParse(ReplySchema, body)
    if (!reply.success)
      throw new CertvendError(
        'ERR_REPLY_MALFORMED',
        // Never the value: it may be a secret.
        `the reply of ${host} is not as agreed: ${v.getDotPath(reply.issues[0]) ?? 'no JSON object'}`,
      )
    const { accessKeyId, expiration, ...secrets } = reply.output.credentials
    const ends = new Date(expiration)
    if (ends <= now)
      throw new CertvendError(
        'ERR_CLOCK',
        `the credentials of ${host} ended on ${ends.toISOString()}; this device's clock says ${now.toISOString()}`,
      )
    return guard({ accessKeyId, expiration: ends }, secrets)
  }
  const refusal = v.safeParse(RefusalSchema, body)
  const words = refusal.success ? quote(refusal.output.message) : undefined
  const says = words === undefined ? '' : `: ${words}`
  if (status === 429 || status >= 500) {
    const retryAt = parseRetryAfter(response.headers['retry-after'], now)
    throw new CertvendError('ERR_SERVER_BUSY', `${host} answered ${status}${says}`, {
      hint: 'the credentials provider asked for patience; nothing is wrong with this device',
      ...(retryAt ? { retryAt } : {}),
    })
  }
  if (words === undefined)
    throw new CertvendError(
      'ERR_REPLY_MALFORMED',
      `${host} answered ${status} with ${quote(mediaType(response)) || 'no media type'}, not like a credentials provider`,
    )
  throw new CertvendError('ERR_REQUEST_REFUSED', `${host} answered ${status}${says}`, {
    hint: nextStep(status, words, asked),
  })
}

/**
 * What each refusal asks for. Its words are not documented; these were seen.
 *
 * @see https://awslabs.github.io/aws-iot-core-credential-provider-session-helper/dev_notes.html
 */
function nextStep(status: number, words: string, { credential, roleAlias }: Asked): string {
  const { thingName } = credential
  const { name } = roleAlias
  if (status === 404)
    return `create the role alias ${name} in this account and region, or correct its name`
  if (status === 403 && /thing name/i.test(words))
    return `attach the certificate to the thing ${thingName}: aws iot attach-thing-principal`
  if (status === 403 && /certificate/i.test(words))
    return 'compare the endpoint with the account and region that the certificate is registered in; it must be ACTIVE'
  if (status === 403)
    return `let the certificate's policy allow iot:AssumeRoleWithCertificate on the role alias ${name}; a fresh policy takes a moment`
  if (/duration/i.test(words))
    return `lower the credential duration of the role alias ${name}, or raise the role's maximum session duration`
  return `let the role that ${name} points to exist and be assumed by credentials.iot.amazonaws.com`
}

function readJson(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(bytes).toString('utf8'))
  } catch {
    return undefined
  }
}

/** Not frozen: the AWS SDK notes on the object where it came from. */
function guard(
  shown: Pick<AwsCredentials, 'accessKeyId' | 'expiration'>,
  { secretAccessKey, sessionToken }: Pick<AwsCredentials, 'secretAccessKey' | 'sessionToken'>,
): AwsCredentials {
  return Object.defineProperties(shown, {
    secretAccessKey: { get: () => secretAccessKey, enumerable: false },
    sessionToken: { get: () => sessionToken, enumerable: false },
  }) as AwsCredentials
}
