/** Transcripts of `certvend status`, and of what the environment may not do. */
import fs from 'node:fs'
import { describe, expect, it } from 'vitest'
import { certvend, type Outcome } from './command.ts'
import { type Folder, makeFolder } from './folder.ts'
import { caPem } from './pins.ts'

const usage = (message: string, hint: string): Outcome => ({
  code: 2,
  stdout: '',
  stderr: `certvend: ${message}\nhint: ${hint}\n`,
})

const flags = (folder: Folder): string[] => [
  ...['--server', 'https://localhost:1', '--pin', folder.write('pin.pem', caPem)],
  ...['--serial', 'GW-1', '--token-file', folder.write('token', 'a-good-token\n')],
]

describe('the environment', () => {
  it('cannot turn verification off, and is told so', async () => {
    const folder = makeFolder()
    const { stderr } = await certvend(['status', '--state-dir', folder.at('state')], {
      cwd: folder.path,
      env: { NODE_TLS_REJECT_UNAUTHORIZED: '0' },
    })
    expect(stderr).toBe(
      'certvend: NODE_TLS_REJECT_UNAUTHORIZED=0 is ignored; servers are verified all the same\n',
    )
  })

  it('without HOME and STATE_DIRECTORY asks for a state directory', async () => {
    const folder = makeFolder()
    expect(await certvend(['status'], { cwd: folder.path, env: { STATE_DIRECTORY: 'x' } })).toEqual(
      usage(
        'no state directory: neither STATE_DIRECTORY nor HOME names an absolute path',
        'name one: --state-dir DIR',
      ),
    )
  })
})

describe('status', () => {
  it('of a directory that is not there says so and makes nothing', async () => {
    const folder = makeFolder()
    const { code, stdout, stderr } = await certvend(
      ['status', '--json', '--state-dir', folder.at('state')],
      { cwd: folder.path },
    )
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(JSON.parse(stdout)).toEqual({
      version: 1,
      stateDirectory: folder.at('state'),
      state: 'none',
      problems: [],
      mended: [],
    })
    expect(folder.list()).toEqual([])
  })

  it('of a directory that others may write to needs a person, in words and as JSON', async () => {
    const folder = makeFolder()
    const state = folder.at('state')
    fs.mkdirSync(state)
    fs.chmodSync(state, 0o777)
    const argv = ['status', '--state-dir', state]
    const words = await certvend(argv, { cwd: folder.path })
    expect(words.code).toBe(3)
    expect(words.stdout).toContain(`mend it: chmod go-w ${state} (ERR_STORE_UNSAFE)`)
    const json = await certvend([...argv, '--json'], { cwd: folder.path })
    expect(json.code).toBe(3)
    expect(JSON.parse(json.stdout)).toMatchObject({
      state: 'unreadable',
      problems: [{ code: 'ERR_STORE_UNSAFE' }],
    })
  })
})

describe('a state directory that others may write to', () => {
  it.each(['enroll', 'run'])('is refused by %s with the command that mends it', async (command) => {
    const folder = makeFolder()
    const state = folder.at('state')
    fs.mkdirSync(state)
    fs.chmodSync(state, 0o777)
    const { code, stderr } = await certvend([command, ...flags(folder), '--state-dir', state], {
      cwd: folder.path,
    })
    expect(code).toBe(3)
    expect(stderr).toContain(`mend it: chmod go-w ${state}`)
    expect(fs.readdirSync(state)).toEqual([])
  })
})
