import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import type { LogEvent } from '../src/log.ts'
import { destroyOwnCopy, findToken, importToken, ownCopy } from '../src/token.ts'
import { certvend } from './command.ts'
import { type Folder, makeFolder } from './folder.ts'
import { caPem } from './pins.ts'

const token = 'a-good-token'

function boot(text: string): { folder: Folder; file: string; state: string } {
  const folder = makeFolder()
  return { folder, file: folder.write('certvend.token', text, 0o755), state: folder.at('state') }
}

async function imported(files: readonly string[], stateDirectory: string) {
  const events: LogEvent[] = []
  const outcome = await importToken(files, { stateDirectory, log: (event) => events.push(event) })
  return { outcome, events }
}

describe('a token on the boot partition', () => {
  it('is moved into the state directory, readable by its owner only, and erased there', async () => {
    const { folder, file, state } = boot(`${token}\r\n`)
    const { outcome, events } = await imported(['/nonexistent', file], state)
    expect(outcome).toBe('moved')
    expect(fs.readFileSync(ownCopy(state), 'utf8')).toBe(token)
    expect(fs.statSync(ownCopy(state)).mode & 0o777).toBe(0o600)
    expect(folder.list()).toEqual(['state'])
    expect(events).toEqual([{ event: 'token.imported', path: file }])
    expect(findToken(state, {})?.value).toBe(ownCopy(state))
  })

  it('is overwritten before it is removed', async () => {
    const { folder, file, state } = boot(token)
    fs.linkSync(file, folder.at('same'))
    await imported([file], state)
    expect(fs.readFileSync(folder.at('same'))).toEqual(Buffer.alloc(token.length))
  })

  it('replaces one that was moved before', async () => {
    const { folder, file, state } = boot(token)
    await imported([file], state)
    await imported([folder.write('again', 'another-token')], state)
    expect(fs.readFileSync(ownCopy(state), 'utf8')).toBe('another-token')
  })

  it.each(['', ' \n', 'dear s3cret sir'])('is left alone when it is none: %j', async (text) => {
    const { folder, file, state } = boot(text)
    const { outcome, events } = await imported([file], state)
    expect(outcome).toBe('left')
    expect(events).toMatchObject([{ event: 'token.unusable', path: file }])
    expect(JSON.stringify(events)).not.toContain('s3cret')
    expect(folder.list()).toEqual(['certvend.token'])
  })

  it('that is a link is not followed when it is erased', async () => {
    const { folder, file, state } = boot(token)
    fs.symlinkSync(file, folder.at('link'))
    const { events } = await imported([folder.at('link')], state)
    expect(events).toMatchObject([{ event: 'token.exposed', path: folder.at('link') }])
    expect(fs.readFileSync(file, 'utf8')).toBe(token)
  })

  it('is reported when the state directory cannot take it, and stays', async () => {
    const { folder, file, state } = boot(token)
    fs.mkdirSync(state)
    fs.chmodSync(state, 0o777)
    await expect(imported([file], state)).rejects.toMatchObject({ code: 'ERR_STORE_UNSAFE' })
    expect(folder.list()).toEqual(['certvend.token', 'state'])
  })

  it.skipIf(process.getuid?.() !== 0)(
    'belongs to the owner of the state, also when root moves it',
    async () => {
      const { file, state } = boot(token)
      fs.mkdirSync(state, 0o700)
      fs.chownSync(state, 1234, 1234)
      await imported([file], state)
      const { uid, gid, mode } = fs.statSync(ownCopy(state))
      expect({ uid, gid, mode: mode & 0o777 }).toEqual({ uid: 1234, gid: 1234, mode: 0o600 })
    },
  )
})

describe('our copy of the token', () => {
  it('is overwritten and removed when it has served', async () => {
    const { file, state } = boot(token)
    await imported([file], state)
    const events: LogEvent[] = []
    destroyOwnCopy(state, (event) => events.push(event))
    destroyOwnCopy(state, (event) => events.push(event))
    expect(fs.readdirSync(state)).toEqual([])
    expect(events).toEqual([{ event: 'token.destroyed', path: ownCopy(state) }])
  })
})

describe('among systemd’s credentials', () => {
  it('the token is found, unless it is the unit’s word for none', () => {
    const folder = makeFolder()
    const environment = { CREDENTIALS_DIRECTORY: folder.path }
    expect(findToken(folder.at('state'), environment)).toBeUndefined()
    folder.write('claim-token', 'none\n')
    expect(findToken(folder.at('state'), environment)).toBeUndefined()
    folder.write('claim-token', token)
    expect(findToken(folder.at('state'), environment)?.value).toBe(folder.at('claim-token'))
  })
})

describe('certvend import-token', () => {
  it('moves the file that it is given, and says so', async () => {
    const { folder, file, state } = boot(token)
    const argv = ['import-token', file, '--state-dir', state]
    const { code, stdout } = await certvend(argv, { cwd: folder.path })
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ event: 'token.imported', path: file })
    expect(stdout).not.toContain(token)
  })

  it('takes a token from stdin, and nothing else that is typed there', () => {
    const folder = makeFolder()
    const binary = fileURLToPath(new URL('../dist/main.js', import.meta.url))
    const run = (input: string) =>
      spawnSync(
        process.execPath,
        [binary, 'import-token', '-', '--state-dir', folder.at('state')],
        {
          input,
          encoding: 'utf8',
        },
      )
    expect(run('dear sir\n').status).toBe(3)
    expect(folder.list()).toEqual([])
    expect(run(`${token}\n`).status).toBe(0)
    expect(fs.readFileSync(ownCopy(folder.at('state')), 'utf8')).toBe(token)
  })

  it('exits 3 when a person must look at the file, and 0 when there is none', async () => {
    const { folder, file, state } = boot('not a token')
    const run = (name: string) =>
      certvend(['import-token', name, '--state-dir', state], { cwd: folder.path })
    expect((await run(file)).code).toBe(3)
    expect(await run(folder.at('none'))).toEqual({ code: 0, stdout: '', stderr: '' })
  })
})

describe('certvend config check', () => {
  const configured = (lines: string): Folder => {
    const folder = makeFolder()
    folder.write('ca.pem', caPem)
    folder.write('agent.toml', `url = "https://vending.example.com"\npins = "ca.pem"\n${lines}`)
    return folder
  }

  it('shows what a run would work with, and makes nothing', async () => {
    const folder = configured('serial = "GW-1"\ntoken_file = "token"\nstate_directory = "state"\n')
    folder.write('token', token)
    const argv = ['config', 'check', '--config', 'agent.toml']
    const { code, stdout, stderr } = await certvend(argv, { cwd: folder.path })
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toBe(`file        agent.toml
state       ${folder.at('state')}
credential  none: a certificate is asked for
url         https://vending.example.com/
pin         ${folder.at('ca.pem')}
serial      GW-1 (agent.toml:3)
token       in ${folder.at('token')} (agent.toml:4)
`)
    expect(folder.list()).toEqual(['agent.toml', 'ca.pem', 'token'])
  })

  it.each([
    ['serial = "GW-1"\n', 'no token'],
    ['serial = { file = "none" }\n', 'agent.toml:3: the serial file'],
    ['token_file = "token"\nsreial = "x"\n', 'agent.toml:4: unknown key "sreial"'],
  ])('exits 2 with the first mistake: %j', async (lines, complaint) => {
    const folder = configured(`${lines}`)
    const { code, stderr } = await certvend(['config', 'check', '--config', 'agent.toml'], {
      cwd: folder.path,
    })
    expect(code).toBe(2)
    expect(stderr).toContain(`certvend: ${complaint}`)
  })
})
