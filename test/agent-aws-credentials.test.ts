/** `certvend aws-credentials`, as an AWS SDK calls it. */
import fs from 'node:fs'
import path from 'node:path'
import { fromProcess } from '@aws-sdk/credential-provider-process'
import { createClaim, createVendingServer, enroll, openCredentialStore } from '@certvend/client'
import { expect, it, onTestFinished } from 'vitest'
import { binary, start } from './agent-process.ts'
import {
  type CredentialsProvider,
  type Reply,
  secrets,
  startCredentialsProvider,
} from './credentials-provider.ts'
import { certify } from './pki.ts'
import { temporaryDirectory } from './temporary.ts'
import { makeVendingMachine } from './vending-machine.ts'

const ca = await certify('Provider CA', { ca: true })
const server = await certify('localhost', { issuer: ca, dns: ['localhost'] })
const deviceCa = await certify('Device CA', { ca: true })
const hidden = new RegExp(
  `${secrets.secretAccessKey.slice(0, 12)}|${secrets.sessionToken.slice(0, 12)}`,
)

async function provider(
  things: Readonly<Record<string, string>>,
  instead: () => Reply | undefined = () => undefined,
): Promise<CredentialsProvider> {
  const roleAliases = ['gateway-s3']
  const started = await startCredentialsProvider({ server, deviceCa, things, roleAliases, instead })
  onTestFinished(() => started.close())
  return started
}

async function certvend(argv: readonly string[], { cwd }: { cwd: string }) {
  const child = start(argv, { cwd })
  const { code } = await child.exited
  return { code, stdout: child.stdout, stderr: child.stderr }
}

/** A state directory that holds an enrolled device, and its credential. */
async function enrolled(folder: string) {
  const machine = makeVendingMachine({ deviceCa, mqttCa: ca })
  const state = path.join(folder, 'state')
  const store = await openCredentialStore(state)
  const vending = createVendingServer({ url: 'https://vend.example', pins: ca.certificate })
  const claim = createClaim({ deviceSerial: 'gw-7', token: 'token-of-gw-7' })
  const { certificateId } = await enroll(store, vending, claim, { send: machine.send })
  store.close()
  fs.writeFileSync(path.join(folder, 'ca.pem'), ca.certificate)
  return { state, certificateId }
}
const flags = (there: CredentialsProvider, state: string, name = 'gateway-s3'): string[] => [
  'aws-credentials',
  '--endpoint',
  `localhost:${there.port}`,
  '--role-alias',
  name,
  '--ca',
  'ca.pem',
  '--state-dir',
  state,
]

it('prints what credential_process wants, on stdout, and changes nothing', async () => {
  const cwd = temporaryDirectory()
  const { state, certificateId } = await enrolled(cwd)
  const there = await provider({ 'gw-7': certificateId })
  const before = fs.readdirSync(state, { recursive: true })
  const { code, stdout, stderr } = await certvend(flags(there, state), { cwd })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(/^\{.*\}\n$/)
  expect(JSON.parse(stdout)).toEqual({
    Version: 1,
    AccessKeyId: secrets.accessKeyId,
    SecretAccessKey: secrets.secretAccessKey,
    SessionToken: secrets.sessionToken,
    Expiration: expect.stringMatching(/^20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z$/),
  })
  expect(fs.readdirSync(state, { recursive: true })).toEqual(before)
})

it('is what an AWS SDK calls by the profile in its configuration', async () => {
  const cwd = temporaryDirectory()
  const { state, certificateId } = await enrolled(cwd)
  const there = await provider({ 'gw-7': certificateId })
  const argv = [process.execPath, binary, ...flags(there, state)].map((word) =>
    word === 'ca.pem' ? path.join(cwd, word) : word,
  )
  const configFilepath = path.join(cwd, 'config')
  fs.writeFileSync(configFilepath, `[profile gateway]\ncredential_process = ${argv.join(' ')}\n`)
  const { accessKeyId, secretAccessKey, sessionToken, expiration } = await fromProcess({
    profile: 'gateway',
    configFilepath,
    filepath: path.join(cwd, 'none'),
  })()
  expect({ accessKeyId, secretAccessKey, sessionToken }).toEqual(secrets)
  expect(expiration?.getTime()).toBeGreaterThan(Date.now())
})

it('says what to do, prints no document and exits with 3 when it is refused', async () => {
  const cwd = temporaryDirectory()
  const { state, certificateId } = await enrolled(cwd)
  const there = await provider({ 'gw-8': certificateId })
  const { code, stdout, stderr } = await certvend(flags(there, state), { cwd })
  expect({ code, stdout }).toEqual({ code: 3, stdout: '' })
  expect(stderr).toMatch(
    /^certvend: localhost:\d+ answered 403: Invalid thing name passed \(ERR_REQUEST_REFUSED\)\nhint: attach .*gw-7/,
  )
})

it('shows no secret of a reply that it refuses', async () => {
  const cwd = temporaryDirectory()
  const { state } = await enrolled(cwd)
  const there = await provider({}, () => ({ status: 200, body: { credentials: secrets } }))
  const { code, stdout, stderr } = await certvend(flags(there, state), { cwd })
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toContain('credentials.expiration (ERR_REPLY_MALFORMED)')
  expect(stderr).not.toMatch(hidden)
})

it('exits with 1 when nobody answers', async () => {
  const cwd = temporaryDirectory()
  const { state } = await enrolled(cwd)
  const there = await provider({})
  await there.close()
  const { code, stdout, stderr } = await certvend(flags(there, state), { cwd })
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' })
  expect(stderr).toMatch(/^certvend: cannot reach localhost:\d+ \(ECONNREFUSED\) \(ERR_NETWORK\)\n/)
})

it.each([
  ['no credential', {}, /holds no credential\nhint: certvend enroll/],
  ['a role alias that is none', { name: 'a/b' }, /a role alias is 1 to 128/],
  ['a CA file that is not there', { ca: 'gone.pem' }, /--ca: cannot read gone\.pem \(ENOENT\)/],
  ['a CA file that is none', { ca: 'ca.txt' }, /not a certificate|PEM/i],
])('exits with 2 for %s', async (_title, bent: { name?: string; ca?: string }, message) => {
  const cwd = temporaryDirectory()
  const { state } = bent.name || bent.ca ? await enrolled(cwd) : { state: path.join(cwd, 'none') }
  for (const name of bent.ca ? ['ca.txt'] : ['ca.txt', 'ca.pem'])
    fs.writeFileSync(path.join(cwd, name), name === 'ca.pem' ? ca.certificate : 'hello')
  const there = { port: 9, requests: [], close: async () => {} }
  const argv = flags(there, state, bent.name).map((word) =>
    word === 'ca.pem' ? (bent.ca ?? word) : word,
  )
  const { code, stdout, stderr } = await certvend(argv, { cwd })
  expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
  expect(stderr).toMatch(message)
})

it('asks the running agent, which keeps them in memory, and shows them in no log', async () => {
  const cwd = temporaryDirectory()
  const { state, certificateId } = await enrolled(cwd)
  const there = await provider({ 'gw-7': certificateId })
  const agent = start(['run', '--state-dir', state], { cwd })
  await agent.until('session.retry') // its broker is nowhere; who has a certificate may ask all the same
  const answers = await Promise.all([1, 2, 3].map(() => certvend(flags(there, state), { cwd })))
  expect(new Set(answers.map(({ stdout }) => stdout)).size).toBe(1)
  expect(answers.every(({ code }) => code === 0)).toBe(true)
  expect(JSON.parse(answers[0]?.stdout ?? '')).toMatchObject({ Version: 1 })
  expect(there.requests).toHaveLength(1)
  for (const entry of fs.readdirSync(state, { recursive: true, withFileTypes: true }))
    if (entry.isFile())
      expect(fs.readFileSync(path.join(entry.parentPath, entry.name), 'utf8')).not.toMatch(hidden)
  const withoutCa = flags(there, state).filter((word) => !/^--ca$|^ca\.pem$/.test(word))
  const untrusted = await certvend(withoutCa, { cwd })
  expect(untrusted.code).toBe(3)
  expect(untrusted.stderr).toContain('(ERR_SERVER_UNTRUSTED)')
  const refused = await certvend(flags(there, state, 'other-role'), { cwd })
  expect(refused.code).toBe(3)
  expect(refused.stderr).toMatch(/answered 404: .*\nhint: create the role alias other-role/)
  expect((await agent.terminate()).code).toBe(0)
  expect(agent.stdout + agent.stderr).not.toMatch(hidden)
})
