/** The disk under a state directory: read-only, or too full, it costs no key and no credential. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { type CredentialStore, openCredentialStore } from '@certvend/client'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { notRoot } from './process.ts'
import { issuedFor, obtain } from './stored-credential.ts'
import { contents } from './temporary.ts'

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
    const credential = await obtain(store)
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
      await obtain(store)
      reached = 'done'
    } catch (error) {
      expect(error, where).toEqual(full)
      expect((error as Error).message, where).toMatch(/ENOSPC/)
      // Once all was written only the link was missing: then it may already be in use.
      expect([undefined, key], where).toContain(store.current()?.privateKey.toPem())
    }
    execFileSync('mount', ['-o', 'remount,nr_inodes=1000', base])
    // The same process goes on, with the same key if there was one.
    if (!store.current()) await obtain(store)
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
    const issued = await issuedFor(store)
    const issue = () => store.issue(issued)
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
