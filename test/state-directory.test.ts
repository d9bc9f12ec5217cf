/** Which state directories are trusted, which disks are too full, and what is said about the others. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import {
  type CertvendError,
  type CredentialStore,
  defaultStateDirectory,
  openCredentialStore,
} from '@certvend/client'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { type Certified, certificateIdOf, certify } from './pki.ts'
import { becomeNobody, nobody, notRoot, runScript } from './process.ts'
import { contents, temporaryDirectory } from './temporary.ts'

const somebody = 61234

let deviceCa: Certified
beforeAll(async () => {
  deviceCa = await certify('Device CA', { ca: true })
})

async function obtain(store: CredentialStore) {
  const { privateKey } = store.begin()
  const publicKey = privateKey.publicKey.export({ type: 'spki', format: 'der' })
  const { certificate } = await certify('device-1', { issuer: deviceCa, publicKey })
  return () =>
    store.issue({
      deviceSerial: 'device-1',
      thingName: 'device-1',
      certificateId: certificateIdOf(certificate),
      certificateChain: certificate,
      endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: [deviceCa.certificate] },
      keyOrigin: 'device',
      issuedAt: new Date('2026-12-01T00:00:00Z'),
    })
}

const refusal = (directory: string): Promise<CertvendError> =>
  openCredentialStore(directory).then(
    () => Promise.reject(new Error(`${directory} was opened`)),
    (error) => error,
  )

/** Runs the command that a message ends in. */
function obey(message: string): void {
  const command = /; mend it: (.+)$/.exec(message)?.[1]
  expect(command, message).toBeDefined()
  execFileSync('sh', ['-c', command as string])
}

describe('a state directory', () => {
  it.each([
    ['writable by everybody', 0o777],
    ['writable by its group', 0o770],
    ['sticky and writable by everybody', 0o1777],
  ])('that is %s is refused until the command in the message was run', async (_title, mode) => {
    const directory = path.join(temporaryDirectory(), 'state')
    fs.mkdirSync(directory)
    fs.chmodSync(directory, mode)
    const error = await refusal(directory)
    expect(error).toMatchObject({ code: 'ERR_STORE_UNSAFE', remedy: 'operator' })
    expect(error.message).toContain(`chmod go-w ${directory}`)
    obey(error.message)
    await openCredentialStore(directory)
  })

  it.each([
    ['writable by everybody', 0o777],
    ['writable by its group', 0o775],
  ])('below a parent that is %s is refused, also while it does not exist', async (_title, mode) => {
    const parent = path.join(temporaryDirectory(), 'parent')
    const directory = path.join(parent, 'a', 'state')
    fs.mkdirSync(parent)
    fs.chmodSync(parent, mode)
    expect((await refusal(directory)).message).toContain(`chmod go-w ${parent}`)
    fs.mkdirSync(directory, { recursive: true })
    const error = await refusal(directory)
    expect(error.code).toBe('ERR_STORE_UNSAFE')
    obey(error.message)
    await openCredentialStore(directory)
  })

  it('in a sticky directory such as /tmp is fine', async () => {
    const parent = path.join(temporaryDirectory(), 'sticky')
    fs.mkdirSync(parent)
    fs.chmodSync(parent, 0o1777)
    const store = await openCredentialStore(path.join(parent, 'state'))
    store.begin()
  })

  it('may be read by others, who see no key', async () => {
    const directory = path.join(temporaryDirectory(), 'state')
    fs.mkdirSync(directory)
    fs.chmodSync(directory, 0o755)
    const store = await openCredentialStore(directory)
    store.begin()
    const modes = contents(directory)
      .filter((name) => name.endsWith('.pem'))
      .map((name) => fs.statSync(path.join(directory, name)).mode & 0o777)
    expect(new Set(modes)).toEqual(new Set([0o600]))
  })

  it('is resolved once, through links of ours', async () => {
    const base = temporaryDirectory()
    fs.mkdirSync(path.join(base, 'private/certvend'), { recursive: true })
    fs.symlinkSync('private/certvend', path.join(base, 'relative'))
    fs.symlinkSync(path.join(base, 'relative'), path.join(base, 'absolute'))
    for (const name of ['relative', 'absolute', 'private/../relative/.'])
      expect((await openCredentialStore(path.join(base, name))).directory).toBe(
        path.join(base, 'private/certvend'),
      )
  })

  it('below a link that ends in an unsafe place is refused for that place', async () => {
    const base = temporaryDirectory()
    fs.mkdirSync(path.join(base, 'open'))
    fs.chmodSync(path.join(base, 'open'), 0o777)
    fs.symlinkSync('open', path.join(base, 'link'))
    expect((await refusal(path.join(base, 'link/state'))).message).toContain(
      `chmod go-w ${path.join(base, 'open')}`,
    )
  })

  it('behind a link in a directory that others may write to is refused', async () => {
    const base = temporaryDirectory()
    const open = path.join(base, 'open')
    fs.mkdirSync(path.join(base, 'state'))
    fs.mkdirSync(open)
    fs.symlinkSync('../state', path.join(open, 'link'))
    fs.chmodSync(open, 0o777)
    expect((await refusal(path.join(open, 'link'))).message).toContain(`chmod go-w ${open}`)
  })

  it('behind links that run in a circle is refused', async () => {
    const base = temporaryDirectory()
    fs.symlinkSync('b', path.join(base, 'a'))
    fs.symlinkSync('a', path.join(base, 'b'))
    expect((await refusal(path.join(base, 'a/state'))).code).toBe('ERR_STORE_UNSAFE')
  })

  it('that is a file is refused', async () => {
    const file = path.join(temporaryDirectory(), 'state')
    fs.writeFileSync(file, '')
    for (const directory of [file, path.join(file, 'below')])
      expect(await refusal(directory)).toMatchObject({
        code: 'ERR_STORE_UNWRITABLE',
        remedy: 'operator',
      })
  })

  it('with a name of 10 000 characters is refused with one of our errors', async () => {
    const error = await refusal(path.join(temporaryDirectory(), 'x'.repeat(10_000)))
    expect(error.name).toBe('CertvendError')
    expect(error.remedy).toBe('operator')
  })

  it('may have spaces, quotes and Unicode in its name', async () => {
    const directory = path.join(temporaryDirectory(), `it's "mine" ☃ $(id)`)
    const store = await openCredentialStore(directory)
    expect((await obtain(store))().generation).toBe(1)
  })

  it('with such a name is mended by the command in the message all the same', async () => {
    const directory = path.join(temporaryDirectory(), `it's "mine" ☃ $(touch pwned)`)
    fs.mkdirSync(directory)
    fs.chmodSync(directory, 0o777)
    obey((await refusal(directory)).message)
    await openCredentialStore(directory)
  })
})

describe.skipIf(notRoot)(`a state directory among several users ${notRoot ?? ''}`, () => {
  /** A directory that everybody may enter, of root's. */
  function shared(): string {
    const base = temporaryDirectory()
    fs.chmodSync(base, 0o755)
    return base
  }

  const openAsNobody = (directory: string, then = 'store.begin().generation') =>
    runScript<{ code?: string; message?: string; outcome?: unknown }>(
      `import { openCredentialStore } from '@certvend/client'
       ${becomeNobody}
       const attempt = async () => {
         const store = await openCredentialStore(process.argv[1])
         return ${then}
       }
       const told = await attempt().then(
         (outcome) => ({ outcome }),
         ({ code, message, name }) => ({ code: name === 'CertvendError' ? code : 'bare ' + code, message }),
       )
       console.log(JSON.stringify(told))`,
      { args: [directory] },
    )

  it('that is ours, below root, is fine', async () => {
    const directory = path.join(shared(), 'state')
    fs.mkdirSync(directory, { mode: 0o700 })
    fs.chownSync(directory, nobody, nobody)
    expect(await openAsNobody(directory)).toEqual({ outcome: 1 })
  })

  it('that belongs to another user is refused', async () => {
    const directory = path.join(shared(), 'state')
    fs.mkdirSync(directory, { mode: 0o755 })
    fs.chownSync(directory, somebody, somebody)
    const told = await openAsNobody(directory)
    expect(told.code).toBe('ERR_STORE_UNSAFE')
    expect(told.message).toContain(`belongs to user ${somebody}`)
    expect(told.message).toContain(`chown ${nobody} ${directory}`)
  })

  it('below a directory of another user is refused', async () => {
    const theirs = path.join(shared(), 'theirs')
    fs.mkdirSync(theirs, { mode: 0o755 })
    fs.chownSync(theirs, somebody, somebody)
    const told = await openAsNobody(path.join(theirs, 'state'))
    expect(told.code).toBe('ERR_STORE_UNSAFE')
    expect(told.message).toContain(theirs)
  })

  it('behind a link that another user planted in a sticky directory is refused', async () => {
    const base = shared()
    const sticky = path.join(base, 'tmp')
    fs.mkdirSync(sticky)
    fs.chmodSync(sticky, 0o1777)
    fs.mkdirSync(path.join(base, 'state'), { mode: 0o700 })
    fs.chownSync(path.join(base, 'state'), nobody, nobody)
    fs.symlinkSync(path.join(base, 'state'), path.join(sticky, 'link'))
    fs.lchownSync(path.join(sticky, 'link'), somebody, somebody)
    const told = await openAsNobody(path.join(sticky, 'link'))
    expect(told.code).toBe('ERR_STORE_UNSAFE')
    expect(told.message).toContain('link that belongs to another user')
  })

  it.each([
    ['that may not be read', 0o000, ''],
    ['below one that may not be entered', 0o700, 'state'],
  ])('%s is refused with one of our errors', async (_title, mode, below) => {
    const directory = path.join(shared(), 'closed')
    fs.mkdirSync(path.join(directory, below), { recursive: true })
    fs.chmodSync(directory, mode)
    const told = await openAsNobody(path.join(directory, below))
    expect(told.code).toBe('ERR_STORE_UNREADABLE')
  })

  it.each([
    ['of root, 0755', 0, 0o755],
    ['of ours, without the right to write', nobody, 0o500],
  ])('%s can be opened and not written to', async (_title, owner, mode) => {
    const directory = path.join(shared(), 'state')
    fs.mkdirSync(directory)
    fs.chownSync(directory, owner, owner)
    fs.chmodSync(directory, mode)
    expect(await openAsNobody(directory, 'String(store.current())')).toEqual({
      outcome: 'undefined',
    })
    expect((await openAsNobody(directory)).code).toBe('ERR_STORE_UNWRITABLE')
    expect(contents(directory)).toEqual([])
  })

  it('in the home of its user is read by root, who is told to change nothing', async () => {
    const home = path.join(shared(), 'home')
    const directory = path.join(home, 'state')
    fs.mkdirSync(home, { mode: 0o755 })
    fs.chownSync(home, nobody, nobody)
    expect(await openAsNobody(directory)).toEqual({ outcome: 1 })
    const store = await openCredentialStore(directory)
    expect(store.pending()?.generation).toBe(1)
    expect(() => store.begin()).toThrow(/another user/)
  })

  it('of root, in the home of another user, is refused to root', async () => {
    const home = path.join(shared(), 'home')
    fs.mkdirSync(path.join(home, 'state'), { recursive: true, mode: 0o755 })
    fs.chownSync(home, nobody, nobody)
    const error = await refusal(path.join(home, 'state'))
    expect(error.code).toBe('ERR_STORE_UNSAFE')
    expect(error.message).not.toContain('chown 0')
  })

  it('that root would have to make in the home of another user is refused', async () => {
    const home = path.join(shared(), 'home')
    fs.mkdirSync(home, { mode: 0o755 })
    fs.chownSync(home, nobody, nobody)
    expect((await refusal(path.join(home, 'state'))).code).toBe('ERR_STORE_UNSAFE')
  })

  it('that somebody else made between opening and writing is not written to', async () => {
    const sticky = path.join(shared(), 'tmp')
    fs.mkdirSync(sticky)
    fs.chmodSync(sticky, 0o1777)
    const directory = path.join(sticky, 'state')
    const store = await openCredentialStore(directory)
    fs.mkdirSync(directory)
    fs.chownSync(directory, somebody, somebody)
    expect(() => store.begin()).toThrow(expect.objectContaining({ name: 'CertvendError' }))
    expect(contents(directory)).toEqual([])
  })
})

const mountFails = notRoot ?? (canMount() ? undefined : 'tmpfs cannot be mounted here')
function canMount(): boolean {
  const probe = fs.mkdtempSync('/tmp/certvend-mount-')
  try {
    execFileSync('mount', ['-t', 'tmpfs', 'none', probe], { stdio: 'ignore' })
    execFileSync('umount', [probe], { stdio: 'ignore' })
    return true
  } catch {
    return false
  } finally {
    fs.rmdirSync(probe)
  }
}

describe.skipIf(mountFails)(`a disk ${mountFails ?? ''}`, () => {
  let base: string
  const opened: CredentialStore[] = []
  beforeAll(() => {
    base = fs.mkdtempSync('/tmp/certvend-disk-')
  })
  afterAll(() => fs.rmdirSync(base))

  /** A small file system, mounted until the test ends. */
  function disk(options: string): (remount: string) => void {
    execFileSync('mount', ['-t', 'tmpfs', '-o', `mode=700,${options}`, 'none', base])
    onTestFinished(() => {
      for (const store of opened.splice(0)) store.close()
      execFileSync('umount', [base])
    })
    return (changed) => execFileSync('mount', ['-o', `remount,${changed}`, base])
  }

  it('that is read-only is read, and not written to', async () => {
    const remount = disk('size=1m')
    const directory = path.join(base, 'state')
    const store = await openCredentialStore(directory)
    opened.push(store)
    const credential = (await obtain(store))()
    store.close()
    remount('ro')
    const again = await openCredentialStore(directory)
    expect(again.current()?.certificateId).toBe(credential.certificateId)
    expect(() => again.begin()).toThrow(expect.objectContaining({ code: 'ERR_STORE_UNWRITABLE' }))
  })

  it('without room for another file loses nothing, at whichever file that is, and goes on when there is room', async () => {
    const failures = new Set<string>()
    for (let inodes = 2; inodes < 14; inodes++) {
      execFileSync('mount', ['-t', 'tmpfs', '-o', `mode=700,nr_inodes=${inodes}`, 'none', base])
      try {
        failures.add(await enrollWithin(`at ${inodes} inodes`))
      } finally {
        for (const store of opened.splice(0)) store.close()
        execFileSync('umount', [base])
      }
    }
    // It failed before there was a key, between key and certificate, and in the end not at all.
    expect(failures).toEqual(new Set(['no key', 'a key', 'done']))
  })

  async function enrollWithin(where: string): Promise<string> {
    const directory = path.join(base, 'state')
    const store = await openCredentialStore(directory)
    opened.push(store)
    const full = expect.objectContaining({ code: 'ERR_STORE_UNWRITABLE', remedy: 'operator' })
    let reached = 'no key'
    let key: string | undefined
    try {
      key = store.begin().privateKey.toPem()
      reached = 'a key'
      ;(await obtain(store))()
      reached = 'done'
    } catch (error) {
      expect(error, where).toEqual(full)
      expect((error as Error).message, where).toMatch(/ENOSPC/)
      // Once all was written only the link was missing: then it may already be in use.
      expect([undefined, key], where).toContain(store.current()?.privateKey.toPem())
    }
    execFileSync('mount', ['-o', 'remount,nr_inodes=1000', base])
    // The same process goes on, with the same key if there was one.
    if (!store.current()) (await obtain(store))()
    if (key) expect(store.current()?.privateKey.toPem(), where).toBe(key)
    store.close()
    const again = await openCredentialStore(directory)
    expect(again.current()?.certificateId, where).toBe(store.current()?.certificateId)
    expect(
      contents(directory).filter((name) => /(^|\/)\./.test(name)),
      where,
    ).toEqual([])
    return reached
  }

  it('without room for a byte more keeps the key, and goes on when there is room', async () => {
    disk('size=40k')
    const directory = path.join(base, 'state')
    const store = await openCredentialStore(directory)
    opened.push(store)
    const issue = await obtain(store)
    const key = store.begin().privateKey.toPem()
    const filler = fs.openSync(path.join(base, 'filler'), 'w')
    expect(() => fs.writeFileSync(filler, Buffer.alloc(1 << 20))).toThrow(/ENOSPC/)
    fs.closeSync(filler)
    expect(issue).toThrow(
      expect.objectContaining({
        code: 'ERR_STORE_UNWRITABLE',
        message: expect.stringMatching(/certificate\.pem \(ENOSPC\)/),
      }),
    )
    expect(store.current()).toBeUndefined()
    expect(contents(directory).filter((name) => name.endsWith('.pem'))).toEqual([
      'generations/0000000001/private-key.pem',
    ])
    fs.rmSync(path.join(base, 'filler'))
    expect(issue().privateKey.toPem()).toBe(key)
  })
})

describe('the default state directory', () => {
  it('is the first that systemd names', async () => {
    expect(await defaultStateDirectory({ STATE_DIRECTORY: '/var/lib/a:/var/lib/b' })).toBe(
      '/var/lib/a',
    )
  })

  it.each(['', 'relative', './x', '~/x'])('is never the relative %j', async (given) => {
    await expect(defaultStateDirectory({ STATE_DIRECTORY: given })).rejects.toThrow(TypeError)
  })

  it('is below the home directory otherwise', async () => {
    const script = `
      import { defaultStateDirectory } from '@certvend/client'
      const told = await defaultStateDirectory().catch(({ name }) => name)
      console.log(JSON.stringify(told))`
    const home = { HOME: '/home/somebody' }
    expect(await runScript(script, { env: home })).toBe('/home/somebody/.local/share/certvend')
    expect(await runScript(script, { env: { HOME: '' } })).toBe('TypeError')
  })
})
