/** The lock of a credential store: one writer at a time, and any number of readers. */
import fs from 'node:fs'
import path from 'node:path'
import { openCredentialStore } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { nextLine, runScript, startScript } from './process.ts'
import { failureOf, furnished, obtain, pemOf, stateDirectory } from './stored-credential.ts'

describe('the lock', () => {
  const holder = `
    import { openCredentialStore } from '@certvend/client'
    import { spawn } from 'node:child_process'
    const store = await openCredentialStore(process.argv[1])
    try {
      store.lock()
      const child = spawn('sleep', ['60'])
      console.log('held ' + child.pid)
    } catch (error) {
      console.log(error.code)
    }
    process.stdin.resume().once('end', () => process.exit())
  `

  it('refuses a second writer at once, who may still read', async () => {
    const { directory } = await furnished()
    const first = await openCredentialStore(directory)
    const second = await openCredentialStore(directory)
    first.lock()
    for (const write of [() => second.lock(), () => second.begin(), () => second.discard()]) {
      const failure = await failureOf(write)
      expect(failure).toMatchObject({ code: 'ERR_STORE_LOCKED', remedy: 'operator' })
      expect(failure.message).toContain(path.join(directory, 'lock'))
    }
    expect(second.current()?.generation).toBe(1)
    const third = await openCredentialStore(directory)
    expect(third.current()?.generation).toBe(1)
    first.close()
    second.lock()
    expect((await failureOf(() => first.begin())).code).toBe('ERR_STORE_LOCKED')
  })

  it('sees what another process wrote before it had the lock', async () => {
    const directory = stateDirectory()
    const late = await openCredentialStore(directory)
    const early = await openCredentialStore(directory)
    const credential = await obtain(early)
    early.close()
    expect(late.current()).toBeUndefined()
    late.lock()
    expect(pemOf(late.current())).toBe(pemOf(credential))
  })

  it('is free at once when its holder was killed, even while a child of the holder lives on', async () => {
    const { directory } = await furnished()
    const child = startScript(holder, { args: [directory] })
    const [word, orphan] = (await nextLine(child)).split(' ')
    expect(word).toBe('held')
    const store = await openCredentialStore(directory)
    expect((await failureOf(() => store.lock())).code).toBe('ERR_STORE_LOCKED')
    const gone = new Promise((resolve) => child.once('exit', resolve))
    child.kill('SIGKILL')
    await gone
    try {
      store.lock()
      expect(process.kill(Number(orphan), 0)).toBe(true)
    } finally {
      process.kill(Number(orphan))
    }
  })

  it('has one winner among eight that come at once', async () => {
    const { directory } = await furnished()
    const children = Array.from({ length: 8 }, () => startScript(holder, { args: [directory] }))
    const words = await Promise.all(children.map(nextLine))
    const winners = words.filter((word) => word.startsWith('held'))
    process.kill(Number(winners[0]?.split(' ')[1]))
    expect(winners).toHaveLength(1)
    expect(new Set(words.filter((word) => !word.startsWith('held')))).toEqual(
      new Set(['ERR_STORE_LOCKED']),
    )
  })

  it('does not follow a link that lies in its place', async () => {
    const { directory } = await furnished()
    const victim = path.join(path.dirname(directory), 'victim')
    fs.rmSync(path.join(directory, 'lock'))
    fs.symlinkSync(victim, path.join(directory, 'lock'))
    const store = await openCredentialStore(directory)
    expect((await failureOf(() => store.lock())).code).toBe('ERR_STORE_UNWRITABLE')
    expect(fs.existsSync(victim)).toBe(false)
  })

  it('says what is missing where there is no flock command', async () => {
    const { directory } = await furnished()
    const told = await runScript<{ code: string; hint: string }>(
      `import { openCredentialStore } from '@certvend/client'
       const store = await openCredentialStore(process.argv[1])
       try { store.lock() } catch ({ code, hint }) { console.log(JSON.stringify({ code, hint })) }`,
      { args: [directory], env: { PATH: '/nonexistent' } },
    )
    expect(told.code).toBe('ERR_STORE_UNWRITABLE')
    expect(told.hint).toMatch(/flock/)
  })
})
