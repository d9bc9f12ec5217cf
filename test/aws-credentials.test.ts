/** AWS credentials by the device's certificate, from AWS IoT's credentials provider. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { inspect } from 'node:util'
import type { CertvendError, ErrorCode } from '@certvend/client'
import { type AwsCredentials, fetchAwsCredentials } from '@certvend/client/aws-credentials'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import {
  type CredentialsProvider,
  type CredentialsProviderOptions,
  type Reply,
  secrets,
  startCredentialsProvider,
} from './credentials-provider.ts'
import { ownDeadline } from './deadline.ts'
import { credentialFor } from './device.ts'
import { startHttpProxy } from './http-proxy.ts'
import { certificateIdOf, certify } from './pki.ts'
import { temporaryDirectory } from './temporary.ts'

const ca = await certify('Provider CA', { ca: true })
const server = await certify('localhost', { issuer: ca, dns: ['localhost'] })
const deviceCa = await certify('Device CA', { ca: true })
const device = await certify('gw-1', { issuer: deviceCa })
const stranger = await certify('gw-2', { issuer: deviceCa })
const endpoint = { host: 'mqtt.example', port: 8883, trustAnchors: [ca.certificate] }
const credential = credentialFor(device, endpoint)
const roleAlias = 'gateway-s3'
const hidden = new RegExp(
  `${secrets.secretAccessKey.slice(0, 12)}|${secrets.sessionToken.slice(0, 12)}`,
)

async function provider(
  options: Partial<CredentialsProviderOptions> = {},
): Promise<CredentialsProvider> {
  const started = await startCredentialsProvider({
    server,
    deviceCa,
    things: {
      'gw-1': certificateIdOf(device.certificate),
      'gw-2': certificateIdOf(stranger.certificate),
    },
    roleAliases: [roleAlias],
    ...options,
  })
  onTestFinished(() => started.close())
  return started
}

const answering = (reply: Reply) => provider({ instead: () => reply })

/** OpenSSL's server, which says in an alert why it refuses a device; Node's says nothing. */
async function openssl(version: string): Promise<number> {
  const directory = temporaryDirectory()
  const file = (name: string, text: string): string => {
    fs.writeFileSync(path.join(directory, name), text)
    return path.join(directory, name)
  }
  const identity = file('server.pem', server.certificate + server.privateKey)
  const admitted = file('ca.pem', ca.certificate)
  const verify = ['-Verify', '1', '-verify_return_error', '-CAfile', admitted]
  const child = spawn(
    'openssl',
    ['s_server', '-accept', '127.0.0.1:0', '-cert', identity, '-key', identity, version, ...verify],
    { stdio: ['pipe', 'pipe', 'ignore'] },
  )
  onTestFinished(() => void child.kill('SIGKILL'))
  let said = ''
  for await (const chunk of child.stdout) {
    said += chunk
    const port = /ACCEPT 127\.0\.0\.1:(\d+)/.exec(said)?.[1]
    if (port !== undefined) return Number(port)
  }
  throw new Error(said)
}

const at = ({ port }: Pick<CredentialsProvider, 'port'>, name = roleAlias) => ({
  name,
  endpoint: `localhost:${port}`,
  trustAnchors: ca.certificate,
})

async function refusal(attempt: Promise<AwsCredentials>): Promise<CertvendError> {
  const error = await attempt.then(
    () => undefined,
    (reason) => reason,
  )
  expect(error, 'credentials came').toBeDefined()
  expect(inspect(error, { depth: 9, showHidden: true }) + error.stack).not.toMatch(hidden)
  return error
}

describe('fetchAwsCredentials', () => {
  it('gives what an AWS SDK takes, for the thing that the certificate is', async () => {
    const there = await provider()
    const got = await fetchAwsCredentials(credential, at(there))
    const { accessKeyId, secretAccessKey, sessionToken, expiration } = got
    expect({ accessKeyId, secretAccessKey, sessionToken }).toEqual(secrets)
    expect(expiration.getTime()).toBeGreaterThan(Date.now() + 3_000_000)
    expect(there.requests).toHaveLength(1)
    expect(there.requests[0]).toMatchObject({
      method: 'GET',
      url: '/role-aliases/gateway-s3/credentials',
      headers: { 'x-amzn-iot-thingname': 'gw-1' },
    })
  })

  it('shows no secret to inspection, to JSON or to spreading, and lets the SDK note its source', async () => {
    const got = await fetchAwsCredentials(credential, at(await provider()))
    const shown = [inspect(got, { depth: 9, showHidden: true }), JSON.stringify(got)]
    expect(shown.join() + inspect({ ...got }) + Object.values(got).join()).not.toMatch(hidden)
    expect(shown[0]).toContain(secrets.accessKeyId)
    expect(Object.assign(got, { $source: {} }).secretAccessKey).toBe(secrets.secretAccessKey)
  })

  it('asks anew each time', async () => {
    const there = await provider()
    await fetchAwsCredentials(credential, at(there))
    await fetchAwsCredentials(credential, at(there))
    expect(there.requests).toHaveLength(2)
  })

  it('goes through a proxy', async () => {
    const there = await provider()
    const proxy = await startHttpProxy({ credentials: 'device:secret' })
    onTestFinished(() => proxy.close())
    const url = new URL(`http://device:secret@127.0.0.1:${proxy.port}`)
    await fetchAwsCredentials(credential, at(there), { proxy: url })
    expect(proxy.targets).toEqual([`localhost:${there.port}`])
  })

  const wrongThing = { ...credential, thingName: 'gw-2' }
  const unknownThing = { ...credential, thingName: 'gw-9' }

  it.each([
    ['another thing', wrongThing],
    ['a thing that there is not', unknownThing],
  ])('is told what to attach when it names %s', async (_title, who) => {
    const error = await refusal(fetchAwsCredentials(who, at(await provider())))
    expect(error).toMatchObject({ code: 'ERR_REQUEST_REFUSED', remedy: 'operator' })
    expect(error.message).toMatch(/^localhost:\d+ answered 403: Invalid thing name passed$/)
    expect(error.hint).toContain(`attach the certificate to the thing ${who.thingName}`)
  })

  it('is told which policy to change', async () => {
    const error = await refusal(
      fetchAwsCredentials(credential, at(await provider({ forbidden: ['gw-1'] }))),
    )
    expect(error).toMatchObject({ code: 'ERR_REQUEST_REFUSED', remedy: 'operator' })
    expect(error.hint).toContain('iot:AssumeRoleWithCertificate on the role alias gateway-s3')
  })

  it('is told that the account does not know the certificate', async () => {
    const error = await refusal(fetchAwsCredentials(credential, at(await provider({ things: {} }))))
    expect(error).toMatchObject({ code: 'ERR_REQUEST_REFUSED', remedy: 'operator' })
    expect(error.hint).toContain('account and region')
  })

  it('is told that there is no such role alias', async () => {
    const error = await refusal(fetchAwsCredentials(credential, at(await provider(), 'other')))
    expect(error.message).toMatch(/answered 404: Role alias does not exist$/)
    expect(error.hint).toContain('create the role alias other')
  })

  it.each([
    [
      'Unable to assume the role, or the role to assume does not exist',
      /be assumed by credentials\.iot/,
    ],
    [
      'The requested CredentialDurationSeconds exceeds the MaxSessionDuration set for the role',
      /lower the credential duration/,
    ],
  ])('is told what is wrong with the role: %s', async (message, hint) => {
    const error = await refusal(
      fetchAwsCredentials(credential, at(await answering({ status: 400, body: { message } }))),
    )
    expect(error).toMatchObject({ code: 'ERR_REQUEST_REFUSED', remedy: 'operator' })
    expect(error.message).toContain(message)
    expect(error.hint).toMatch(hint)
  })

  const expiration = '2099-01-01T00:00:00Z'
  const credentials = { ...secrets, expiration }
  const faults: readonly (readonly [string, Reply, ErrorCode, RegExp])[] = [
    [
      'too many requests',
      { status: 429, body: { message: 'Rate exceeded' } },
      'ERR_SERVER_BUSY',
      /429: Rate exceeded$/,
    ],
    ['an internal error', { status: 500, body: 'oops' }, 'ERR_SERVER_BUSY', /500$/],
    [
      'a page',
      { status: 200, body: '<html>', headers: { 'content-type': 'text/html' } },
      'ERR_REPLY_MALFORMED',
      /no JSON object$/,
    ],
    [
      'another page',
      { status: 403, body: '<html>', headers: { 'content-type': 'text/html' } },
      'ERR_REPLY_MALFORMED',
      /403 with text\/html/,
    ],
    [
      'a redirect',
      { status: 302, body: '', headers: { location: 'https://a.example' } },
      'ERR_REPLY_MALFORMED',
      /302/,
    ],
    ['nothing', { status: 200, body: '' }, 'ERR_REPLY_MALFORMED', /not as agreed/],
    ['null', { status: 200, body: 'null' }, 'ERR_REPLY_MALFORMED', /not as agreed/],
    ['no credentials', { status: 200, body: {} }, 'ERR_REPLY_MALFORMED', /: credentials$/],
    [
      'a secret of the wrong kind',
      {
        status: 200,
        body: { credentials: { ...credentials, secretAccessKey: [secrets.secretAccessKey] } },
      },
      'ERR_REPLY_MALFORMED',
      /: credentials\.secretAccessKey$/,
    ],
    [
      'a secret with a line break',
      {
        status: 200,
        body: { credentials: { ...credentials, sessionToken: `${secrets.sessionToken}\n` } },
      },
      'ERR_REPLY_MALFORMED',
      /: credentials\.sessionToken$/,
    ],
    [
      'no moment of expiry',
      { status: 200, body: { credentials: { ...credentials, expiration: 'tomorrow' } } },
      'ERR_REPLY_MALFORMED',
      /: credentials\.expiration$/,
    ],
    [
      'credentials that have ended',
      {
        status: 200,
        body: { credentials: { ...credentials, expiration: '2026-01-01T00:00:00Z' } },
      },
      'ERR_CLOCK',
      /ended on 2026-01-01/,
    ],
    [
      'more than fits',
      { status: 200, body: { credentials: { ...credentials, more: 'x'.repeat(100_000) } } },
      'ERR_REPLY_MALFORMED',
      /larger than/,
    ],
    [
      'words that end a line and start a colour',
      { status: 403, body: { message: 'no\r\n\u001b[31mERR' } },
      'ERR_REQUEST_REFUSED',
      /^[\x20-\x7e]+$/,
    ],
  ]
  it.each(faults)('refuses %s', async (_title, reply, code, message) => {
    const error = await refusal(fetchAwsCredentials(credential, at(await answering(reply))))
    expect(error.code).toBe(code)
    expect(error.message).toMatch(message)
  })

  it('waits as long as it is told to', async () => {
    const there = await answering({
      status: 503,
      body: { message: 'later' },
      headers: { 'retry-after': '120' },
    })
    const error = await refusal(fetchAwsCredentials(credential, at(there)))
    expect(error).toMatchObject({ code: 'ERR_SERVER_BUSY', remedy: 'retry' })
    expect(error.retryAt?.getTime()).toBeGreaterThan(Date.now() + 100_000)
  })

  it('costs no more than its deadline', async () => {
    const pass = ownDeadline()
    const instead = () => {
      pass()
      return new Promise<never>(() => {})
    }
    const there = await provider({ instead })
    const error = await refusal(fetchAwsCredentials(credential, at(there)))
    expect(error).toMatchObject({ code: 'ERR_REPLY_LOST', remedy: 'retry' })
  })

  it('gives up with the signal’s reason', async () => {
    const abort = new AbortController()
    const there = await provider({
      instead: () => new Promise(() => abort.abort(new Error('enough'))),
    })
    const { signal } = abort
    expect(await refusal(fetchAwsCredentials(credential, at(there), { signal }))).toBe(
      signal.reason,
    )
  })

  it.each(['-tls1_2', '-tls1_3'])(
    'is told when TLS refuses the certificate: %s',
    async (version) => {
      const port = await openssl(version)
      const error = await refusal(fetchAwsCredentials(credential, at({ port })))
      expect(error).toMatchObject({ code: 'ERR_CREDENTIAL_REFUSED', remedy: 'enroll' })
      expect(error.message).toContain('UNKNOWN_CA')
    },
  )

  it('shows nothing to a server that its anchors do not vouch for', async () => {
    const there = await provider()
    const foreign = { ...at(there), trustAnchors: deviceCa.certificate }
    expect((await refusal(fetchAwsCredentials(credential, foreign))).code).toBe(
      'ERR_SERVER_UNTRUSTED',
    )
    const { name, endpoint: place } = at(there)
    const amazons = await refusal(fetchAwsCredentials(credential, { name, endpoint: place }))
    expect(amazons.code).toBe('ERR_SERVER_UNTRUSTED')
    expect(there.requests).toHaveLength(0)
  })

  it('asks nobody with an expired certificate', async () => {
    const send = vi.fn()
    const old = { ...credential, notAfter: new Date('2026-01-01T00:00:00Z') }
    const error = await refusal(fetchAwsCredentials(old, { name: 'a', endpoint: 'b' }, { send }))
    expect(error).toMatchObject({ code: 'ERR_CREDENTIAL_EXPIRED', remedy: 'enroll' })
    expect(send).not.toHaveBeenCalled()
  })

  it.each([
    ['', 'a.example'],
    ['a/b', 'a.example'],
    ['a b', 'a.example'],
    ['..', 'a.example'],
    ['a'.repeat(129), 'a.example'],
    ['a', ''],
    ['a', 'a.example/path'],
    ['a', 'user:secret@a.example'],
    ['a', 'https://a.example'],
    ['a', 'a.example:99999'],
    ['a', 'a.example?x'],
  ])('finds a role alias %j at %j a mistake', async (name, place) => {
    const attempt = fetchAwsCredentials(credential, { name, endpoint: place })
    await expect(attempt).rejects.toThrow(TypeError)
  })
})
