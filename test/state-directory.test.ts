/**
 * Which state directories are trusted, what is said about the others, and which one is the
 * default.
 */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { type CertvendError, defaultStateDirectory, openCredentialStore } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { runScript } from './process.ts'
import { failureOf, obtain } from './stored-credential.ts'
import { contents, temporaryDirectory } from './temporary.ts'

const refusal = (directory: string): Promise<CertvendError> =>
  failureOf(() => openCredentialStore(directory))

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
    expect((await obtain(store)).generation).toBe(1)
  })

  it('with such a name is mended by the command in the message all the same', async () => {
    const directory = path.join(temporaryDirectory(), `it's "mine" ☃ $(touch pwned)`)
    fs.mkdirSync(directory)
    fs.chmodSync(directory, 0o777)
    obey((await refusal(directory)).message)
    await openCredentialStore(directory)
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
