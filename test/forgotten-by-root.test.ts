/** `certvend forget` by root, of a store that is another user's: as the service's is while it is stopped. */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { expect, test } from 'vitest'
import { start } from './agent-process.ts'
import { furnished } from './stored-credential.ts'
import { contents } from './temporary.ts'

const asRoot = test.skipIf(process.getuid?.() !== 0)

async function forget(directory: string) {
  const command = start(['forget', '--yes', '--state-dir', directory], { cwd: '/' })
  const { code } = await command.exited
  return { code, stderr: command.stderr }
}

asRoot('it is erased by a process of its owner, who cannot even get there', async () => {
  const { directory } = await furnished()
  execFileSync('chown', ['-R', '12345:12345', directory])
  expect((await forget(directory)).code).toBe(0)
  expect(contents(directory)).toEqual(['lock'])
  expect(fs.statSync(path.join(directory, 'lock')).uid).toBe(12345)
})

asRoot('a link that its owner left is removed, and what it names is not touched', async () => {
  const { directory } = await furnished()
  const other = await furnished()
  const home = fs.realpathSync(path.join(directory, 'current'))
  fs.rmSync(home, { recursive: true })
  fs.symlinkSync(fs.realpathSync(path.join(other.directory, 'current')), home)
  execFileSync('chown', ['-Rh', '12345:12345', directory])
  const before = contents(other.directory)
  await forget(directory)
  expect(contents(directory)).toEqual(['lock'])
  expect(contents(other.directory)).toEqual(before)
})

asRoot('where somebody holds it, nothing is removed and the reason is said', async () => {
  const { directory } = await furnished()
  execFileSync('chown', ['-R', '12345:12345', directory])
  const before = contents(directory)
  const holder = fs.openSync(path.join(directory, 'lock'), 'r+')
  execFileSync('flock', ['-n', '3'], { stdio: ['ignore', 'ignore', 'ignore', holder] })
  const { code, stderr } = await forget(directory)
  fs.closeSync(holder)
  expect(code).toBe(3)
  expect(stderr).toContain('another process holds lock')
  expect(contents(directory)).toEqual(before)
})
