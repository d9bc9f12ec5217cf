/** `certvend store check`: the built command on directories in every condition. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  createClaim,
  createVendingServer,
  ensureCredential,
  openCredentialStore,
} from '@certvend/client'
import { type Lab, startLab } from '@certvend/server/lab'
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { contents, temporaryDirectory } from './temporary.ts'

const certvend = fileURLToPath(new URL('./main.js', import.meta.resolve('@certvend/agent')))

function run(...args: string[]): { code: number | null; out: string; errors: string } {
  const { status, stdout, stderr } = spawnSync(process.execPath, [certvend, ...args], {
    env: { PATH: process.env.PATH },
    encoding: 'utf8',
    timeout: 20_000,
    killSignal: 'SIGKILL',
  })
  return { code: status, out: stdout, errors: stderr }
}
const check = (...args: string[]): ReturnType<typeof run> => run('store', 'check', ...args)

let lab: Lab
let whole: string
let directory: string

beforeAll(async () => {
  lab = await startLab()
})
afterAll(() => lab.close())
beforeEach(() => {
  directory = path.join(temporaryDirectory(), 'state')
})

async function enroll(): Promise<void> {
  const store = await openCredentialStore(directory)
  const server = createVendingServer({ url: lab.vendingUrl, pins: lab.pins })
  await ensureCredential(store, server, createClaim(await lab.addDevice()))
  store.close()
  whole = path.join(directory, 'generations', '0000000001')
}

describe('store check', () => {
  it('ends with 1 where nothing is yet, and creates nothing', () => {
    const { code, out } = check(directory)
    expect(code).toBe(1)
    expect(out).toContain('(not there yet)')
    expect(out).toContain('empty: no credential yet')
    expect(fs.existsSync(directory)).toBe(false)
  })

  it('ends with 1 where a key waits for its certificate', async () => {
    const store = await openCredentialStore(directory)
    store.begin()
    store.close()
    const { code, out } = check(directory)
    expect(code).toBe(1)
    expect(out).toContain('generation   1 requested (pending): a key, no certificate')
  })

  it('ends with 0 on a whole credential and says whose it is', async () => {
    await enroll()
    const { code, out } = check(directory)
    expect(code).toBe(0)
    expect(out).toMatch(
      /generation {3}1 issued \(current\): lab-\d+, until \S+, key made by the device/,
    )
    expect(out).toContain('opening      changes nothing')
    expect(out).toContain('writer       none')
  })

  it('names the process that writes', async () => {
    const store = await openCredentialStore(directory)
    store.begin()
    const { out } = check(directory)
    store.close()
    expect(out).toContain(`writer       process ${process.pid}`)
  })

  it('says what opening would mend, and mends nothing', async () => {
    await enroll()
    fs.appendFileSync(path.join(whole, 'certificate.pem'), '\n')
    const before = contents(directory)
    const { code, out } = check(directory)
    expect(code).toBe(1)
    expect(out).toContain('opening      would point pending to generations/0000000001')
    expect(contents(directory)).toEqual(before)
  })

  it('ends with 3 where the credential and its key are damaged', async () => {
    await enroll()
    fs.writeFileSync(path.join(whole, 'private-key.pem'), '')
    const { code, out } = check(directory)
    expect(code).toBe(3)
    expect(out).toContain('(ERR_STORE_CORRUPT)')
    expect(out).toContain('generation   1 broken (current): the private key cannot be read')
  })

  it('ends with 3 where others may write, and names the command that mends it', async () => {
    await enroll()
    fs.chmodSync(directory, 0o777)
    const { code, out } = check(directory)
    expect(code).toBe(3)
    expect(out).toContain(`mend it: chmod go-w ${fs.realpathSync(directory)}`)
  })

  it('ends with 3 where others may read a file of the credential', async () => {
    await enroll()
    fs.chmodSync(path.join(whole, 'certificate.pem'), 0o644)
    const { code, out } = check(directory)
    expect(code).toBe(3)
    expect(out).toContain('exposed      generations/0000000001/certificate.pem')
  })

  it('prints the same as JSON, without the key', async () => {
    await enroll()
    const { code, out } = check(directory, '--json')
    expect(code).toBe(0)
    expect(JSON.parse(out)).toMatchObject({
      directory: fs.realpathSync(directory),
      verdict: 'whole',
      fileSystem: { readOnly: false },
      generations: [{ number: 1, state: 'issued', links: ['current'], keyOrigin: 'device' }],
      exposed: [],
      wouldMend: [],
    })
    const key = fs.readFileSync(path.join(whole, 'private-key.pem'), 'utf8')
    expect(out).not.toContain(key.split('\n')[1])
  })

  it('refuses two directories as usage', () => {
    const { code, out, errors } = check('one', 'two')
    expect(code).toBe(2)
    expect(out).toBe('')
    expect(errors).toContain("certvend: too many arguments for 'check'")
  })
})

it('a pipe in the place of a certificate holds up nobody who looks', async () => {
  await enroll()
  fs.rmSync(path.join(whole, 'certificate.pem'))
  expect(spawnSync('mkfifo', [path.join(whole, 'certificate.pem')]).status).toBe(0)
  for (const command of [['status'], ['doctor'], ['store', 'check']])
    expect(run(...command, '--state-dir', directory).code, command.join(' ')).not.toBeNull()
})
