/** State directories among several users: whose directories, parents and links are trusted. */
import fs from 'node:fs'
import path from 'node:path'
import { type CertvendError, openCredentialStore } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { becomeNobody, nobody, notRoot, runScript } from './process.ts'
import { failureOf } from './stored-credential.ts'
import { contents, temporaryDirectory } from './temporary.ts'

const somebody = 61234

const refusal = (directory: string): Promise<CertvendError> =>
  failureOf(() => openCredentialStore(directory))

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
