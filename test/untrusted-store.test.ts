/** A state directory whose owner is not trusted, read by root: whatever lies there, nothing else is read. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { type Endpoint, openCredentialStore, readUntrustedStore } from '@certvend/client'
import { expect, test } from 'vitest'
import { failureOf, furnished, issuedFor, stateDirectory } from './stored-credential.ts'
import { temporaryDirectory } from './temporary.ts'

const now = new Date()
const linux = process.platform === 'linux'
const asRoot = test.skipIf(!linux || process.getuid?.() !== 0)
const onLinux = test.skipIf(!linux)

async function hostile() {
  const { directory, credential } = await furnished()
  const home = fs.realpathSync(path.join(directory, 'current'))
  return {
    directory,
    credential,
    home,
    at: (name: string): string => path.join(home, name),
    refusal: () => failureOf(() => readUntrustedStore(directory, now)),
  }
}

onLinux('a store as the agent leaves it is read whole', async () => {
  const { directory, credential } = await hostile()
  const read = readUntrustedStore(directory, now)
  expect(read).toMatchObject({ thingName: 'device-1', certificateId: credential.certificateId })
  expect(read?.privateKey.toPem()).toBe(credential.privateKey.toPem())
})

onLinux('a store without a credential holds none', () => {
  expect(readUntrustedStore(stateDirectory(), now)).toBeUndefined()
})

onLinux.each(['private-key.pem', 'certificate.pem', 'trust-anchors.pem', 'credential.json'])(
  '%s as a link to the same bytes elsewhere is refused',
  async (name) => {
    const { at, refusal } = await hostile()
    const elsewhere = path.join(temporaryDirectory(), name)
    fs.renameSync(at(name), elsewhere)
    fs.symlinkSync(elsewhere, at(name))
    expect(await refusal()).toMatchObject({
      code: 'ERR_STORE_UNSAFE',
      message: expect.stringContaining('is not a plain file'),
    })
  },
)

onLinux('a generation that is a link to a directory elsewhere is refused', async () => {
  const { home, refusal } = await hostile()
  const elsewhere = path.join(temporaryDirectory(), 'stolen')
  fs.renameSync(home, elsewhere)
  fs.symlinkSync(elsewhere, home)
  expect((await refusal()).code).toBe('ERR_STORE_UNSAFE')
})

onLinux('generations as a link to a directory elsewhere are refused', async () => {
  const { directory, refusal } = await hostile()
  const elsewhere = path.join(temporaryDirectory(), 'generations')
  fs.renameSync(path.join(directory, 'generations'), elsewhere)
  fs.symlinkSync(elsewhere, path.join(directory, 'generations'))
  expect((await refusal()).code).toBe('ERR_STORE_UNSAFE')
})

onLinux.each(['../../etc', '/etc', 'generations/../../x', 'generations/1', ''])(
  'current that names %j is refused',
  async (target) => {
    const { directory, refusal } = await hostile()
    const link = path.join(directory, 'current')
    fs.rmSync(link)
    if (target === '') fs.mkdirSync(link)
    else fs.symlinkSync(target, link)
    expect((await refusal()).message).toContain('names no generation')
  },
)

onLinux('a FIFO is refused, and nobody waits for a writer', async () => {
  const { at, refusal } = await hostile()
  fs.rmSync(at('certificate.pem'))
  execFileSync('mkfifo', [at('certificate.pem')])
  expect((await refusal()).message).toContain('is not a plain file')
})

onLinux('a file with a second name is refused: it may be somebody else’s', async () => {
  const { at, refusal } = await hostile()
  fs.linkSync(at('private-key.pem'), path.join(temporaryDirectory(), 'other-name'))
  expect((await refusal()).message).toContain('has more than one name')
})

onLinux('a huge file is not read', async () => {
  const { at, refusal } = await hostile()
  fs.truncateSync(at('certificate.pem'), 2 ** 33)
  expect((await refusal()).code).toBe('ERR_STORE_CORRUPT')
})

asRoot('a file of another user in the store is refused', async () => {
  const { at, refusal } = await hostile()
  fs.chownSync(at('certificate.pem'), 12345, 12345)
  expect((await refusal()).message).toContain("belongs to another user than the store's")
})

asRoot('root reads a store that is wholly another user’s', async () => {
  const { directory } = await hostile()
  execFileSync('chown', ['-R', '12345:12345', directory])
  expect(readUntrustedStore(directory, now)).toBeDefined()
})

onLinux.each([
  ['a thing name', { thingName: 'x\ninclude_dir /tmp' }],
  ['a thing name', { thingName: "a' b" }],
  ['a device serial', { deviceSerial: '../../root' }],
  ['an endpoint', { endpoint: { host: 'h\nlistener 1', port: 8883 } }],
  ['an endpoint', { endpoint: { host: 'h', port: 70_000 } }],
  ['an endpoint', { endpoint: { host: 'h', port: 8883, alpn: 'a b' } }],
])('%s that means something to a configuration file is refused: %j', async (what, change) => {
  const directory = stateDirectory()
  const store = await openCredentialStore(directory)
  const { endpoint, ...issued } = await issuedFor(store)
  store.issue({ ...issued, endpoint, ...mixedInto(change, endpoint) })
  store.close()
  expect(await failureOf(() => readUntrustedStore(directory, now))).toMatchObject({
    code: 'ERR_STORE_UNSAFE',
    message: expect.stringContaining(what),
  })
})

/** The endpoint's anchors stay; only its address is the owner's invention. */
function mixedInto(change: object, { trustAnchors }: Endpoint): object {
  if (!('endpoint' in change)) return change
  return { endpoint: { ...(change.endpoint as object), trustAnchors } }
}

onLinux('a key that is another certificate’s is no whole credential', async () => {
  const { at, refusal } = await hostile()
  const other = await hostile()
  fs.copyFileSync(other.at('private-key.pem'), at('private-key.pem'))
  expect((await refusal()).code).toBe('ERR_STORE_CORRUPT')
})

onLinux('a certificate that has ended is handed to nobody', async () => {
  const { directory, credential } = await hostile()
  const later = new Date(credential.notAfter.getTime() + 1000)
  const failure = await failureOf(() => readUntrustedStore(directory, later))
  expect(failure.message).toContain('expired')
})

onLinux('a state directory that others may write to is refused', async () => {
  const { directory, refusal } = await hostile()
  fs.chmodSync(directory, 0o777)
  expect((await refusal()).message).toContain('is writable by group or others')
})
