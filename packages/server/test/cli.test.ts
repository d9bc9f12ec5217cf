import { type ExecFileException, execFile, spawn } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openLibsqlRegistry } from '../src/registry/libsql.ts'
import { makeDeviceKey } from './device.ts'
import { send } from './https.ts'

const main = fileURLToPath(new URL('../dist/main.js', import.meta.url))
let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'certvend-cli-'))
})
afterEach(() => rmSync(directory, { recursive: true, force: true }))

interface Run {
  readonly code: number
  readonly out: string
  readonly err: string
}

/** Runs the built command in an empty environment and an empty directory. */
function run(words: readonly string[], input = ''): Promise<Run> {
  return new Promise((resolve) => {
    const done = (error: ExecFileException | null, out: string, err: string) =>
      resolve({ code: error ? Number(error.code) : 0, out, err })
    const options = { cwd: directory, env: {}, encoding: 'utf8' as const }
    execFile(process.execPath, [main, ...words], options, done).stdin?.end(input)
  })
}

const device = (line: string) => run(['device', ...line.split(' ')])

describe('certvend-server', () => {
  it('shows worked examples for everything it can do', async () => {
    for (const words of [[], ['serve'], ['device'], ['lab']]) {
      const { code, out, err } = await run([...words, '--help'])
      expect([code, err]).toEqual([0, ''])
      expect(out).toContain(
        `  $ ${words.length === 1 && words[0] === 'device' ? '(umask' : 'certvend-server'}`,
      )
    }
  })

  it('never exits with 0 when it did nothing', async () => {
    for (const words of [[], ['device'], ['nonsense'], ['device', 'nonsense'], ['device', 'add']]) {
      const { code, out, err } = await run(words)
      expect([code, out], words.join(' ')).toEqual([2, ''])
      expect(err).not.toBe('')
    }
  })

  it('repeats no control characters of what it was told', async () => {
    const { code, err } = await run(['\u001b[31mred\u0007'])
    expect([code, err]).toEqual([
      2,
      "certvend-server: unknown command ' [31mred '\nhint: add --help to see what can be said here\n",
    ])
  })
})

describe('certvend-server device', () => {
  it('adds a device and shows its token once, alone on standard output', async () => {
    const { code, out, err } = await device('add SN-0001')
    expect(code).toBe(0)
    expect(out).toMatch(/^[A-Za-z0-9_-]{32}\n$/)
    expect(err).toBe('certvend-server: added SN-0001; its token is shown only now\n')
    const later = [
      await device('list'),
      await device('show SN-0001'),
      await device('show SN-0001 --json'),
    ]
    for (const { code, out: shown, err: said } of later) {
      expect(code).toBe(0)
      expect(shown + said).not.toContain(out.trim())
    }
    expect(statSync(join(directory, 'certvend-data')).mode & 0o777).toBe(0o700)
  })

  it('lists what there is, for people and for programs', async () => {
    await device('add SN-0002 --thing-name gateway-2 --policy devices --attribute site=B')
    await device('add SN-0001')
    expect(await device('list')).toEqual({
      code: 0,
      out: [
        'SERIAL                    STATE       THING                     CERTIFICATE UNTIL',
        'SN-0001                   waiting     SN-0001                   -',
        'SN-0002                   waiting     gateway-2                 -',
        '',
      ].join('\n'),
      err: '',
    })
    const { out } = await device('list --json')
    const [first, second] = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(first).toMatchObject({ deviceSerial: 'SN-0001', claim: { token: 'strong' } })
    expect(second).toMatchObject({
      thingName: 'gateway-2',
      policyName: 'devices',
      attributes: { site: 'B' },
      state: 'waiting',
      disabled: false,
      certificates: [],
    })
  })

  it('takes a token that was burned in, and says that it is weak', async () => {
    const token = 'burned-in-1'
    const added = await run(['device', 'add', 'SN-1', '--token-file', '-'], `${token}\n`)
    expect(added).toEqual({
      code: 0,
      out: '',
      err: 'certvend-server: warning: the token is weak; it could be found by trying\ncertvend-server: added SN-1\n',
    })
    expect((await device('show SN-1')).out).toContain('token:        weak\n')
    writeFileSync(join(directory, 'token'), '9f86d081884c7d659a2feaa0c55ad015\n')
    const strong = await device('add SN-2 --token-file token --json')
    expect(strong).toMatchObject({ code: 0, err: 'certvend-server: added SN-2\n' })
    expect(JSON.parse(strong.out)).toEqual({
      deviceSerial: 'SN-2',
      thingName: 'SN-2',
      weak: false,
    })
    const database = readFileSync(join(directory, 'certvend-data', 'registry.db')).toString(
      'latin1',
    )
    expect(database).not.toContain(token)
  })

  it('disables, enables, re-arms and removes', async () => {
    const first = (await device('add SN-1')).out
    expect(await device('disable SN-1')).toEqual({
      code: 0,
      out: '',
      err: 'certvend-server: disabled SN-1\n',
    })
    expect((await device('show SN-1')).out).toContain('state:        disabled\n')
    expect(await device('enable SN-1 --json')).toEqual({
      code: 0,
      out: '{"deviceSerial":"SN-1","disabled":false}\n',
      err: 'certvend-server: enabled SN-1\n',
    })
    const rearmed = await device('rearm SN-1')
    expect(rearmed.out).toMatch(/^[A-Za-z0-9_-]{32}\n$/)
    expect(rearmed.out).not.toBe(first)
    expect(rearmed.err).toMatch(/^certvend-server: re-armed SN-1 for one key until 20\S+Z\n$/)
    const kept = await device('rearm SN-1 --keep-token')
    expect([kept.code, kept.out]).toEqual([0, ''])
    expect(kept.err).toContain('warning: whoever knows the old token can use it for 24 hours\n')
    const { out } = await device('show SN-1')
    expect(out).toMatch(/device-rearmed {2}new token\n.*device-rearmed {2}token kept\n$/)
    expect(await device('remove SN-1')).toEqual({
      code: 0,
      out: '',
      err: 'certvend-server: removed SN-1\n',
    })
    expect((await device('show SN-1')).code).toBe(3)
  })

  it('says what is wrong and what to do about it', async () => {
    await device('add SN-1')
    const serialRule =
      'certvend-server: serial: a device serial has 1 to 64 letters, digits or any of : . _ - and starts with a letter or digit\nhint: add --help to see what can be said here\n'
    for (const [words, code, err] of [
      [
        ['add', 'SN-1'],
        3,
        'certvend-server: there is a device SN-1 already\nhint: see it: certvend-server device show SN-1; a new token: certvend-server device rearm SN-1\n',
      ],
      [
        ['add', 'SN-2', '--thing-name', 'SN-1'],
        3,
        'certvend-server: another device has the thing name SN-1\nhint: two devices of one name would take over each other; choose another --thing-name\n',
      ],
      [
        ['add', 'SN.3'],
        2,
        'certvend-server: SN.3 cannot be a thing name, which has no dots\nhint: name one: certvend-server device add SN.3 --thing-name SN-3\n',
      ],
      [
        ['add', 'SN-4', '--token-file', 'nowhere'],
        2,
        'certvend-server: cannot read nowhere: ENOENT\nhint: check the path\n',
      ],
      [
        ['add', 'SN-4', '--thing-name', 'a/b'],
        2,
        'certvend-server: --thing-name <name>: a thing name has 1 to 128 letters, digits or any of : _ -\nhint: add --help to see what can be said here\n',
      ],
      [
        ['rearm', 'SN-9'],
        3,
        'certvend-server: there is no device SN-9\nhint: see all of them: certvend-server device list\n',
      ],
      [
        ['rearm', 'SN-1', '--keep-token', '--token-file', 'x'],
        2,
        'certvend-server: --keep-token and --token-file exclude each other\nhint: give one of them\n',
      ],
      [
        ['list', '--data-dir', 'elsewhere'],
        2,
        `certvend-server: there is no registry in ${join(directory, 'elsewhere')}\nhint: name the right --data-dir, or add a first device: certvend-server device add SERIAL\n`,
      ],
      [['add', '../etc/passwd'], 2, serialRule],
      [['add', 'a b'], 2, serialRule],
      [['add', 'ä'], 2, serialRule],
      [['add', ''], 2, serialRule],
      [['show', 'x'.repeat(10_000)], 2, serialRule],
    ] as [string[], number, string][])
      expect(await run(['device', ...words]), words.join(' ')).toEqual({ code, out: '', err })
    expect((await device('list')).out.trim().split('\n')).toHaveLength(2)
  })

  it('refuses what is no token', async () => {
    for (const text of ['', 'short', 'two words here', `${'x'.repeat(513)}`, 'ünïcödé-token']) {
      const { code, err, out } = await run(['device', 'add', 'SN-1', '--token-file', '-'], text)
      expect([code, out]).toEqual([2, ''])
      expect(err).toContain('certvend-server: standard input does not hold a token\nhint: ')
      if (text) expect(err).not.toContain(text)
    }
  })

  it('refuses a data directory that others can write to, and a file that is no registry', async () => {
    const shared = join(directory, 'shared')
    await run(['device', 'add', 'SN-1', '--data-dir', shared])
    rmSync(join(shared, 'registry.db'))
    chmodSync(shared, 0o777)
    const { code, err } = await run(['device', 'add', 'SN-1', '--data-dir', shared])
    expect([code, err]).toEqual([
      3,
      `certvend-server: ${shared} can be written to by other users\nhint: chmod go-w ${shared}\n`,
    ])
    chmodSync(shared, 0o700)
    writeFileSync(join(shared, 'registry.db'), 'not a database at all, whatever its name says')
    const other = await run(['device', 'list', '--data-dir', shared])
    expect(other.code).toBe(3)
    expect(other.err).toMatch(/^certvend-server: cannot open the registry .*\nhint: /)
  })

  it('keeps a device whose certificate is in force, unless that may be revoked', async () => {
    await device('add SN-1')
    const registry = openLibsqlRegistry(join(directory, 'certvend-data', 'registry.db'))
    const at = new Date()
    const outcome = await registry.reserve({
      deviceSerial: 'SN-1',
      claimNumber: 1,
      publicKey: 'key',
      certificateSerial: '01',
      at,
    })
    if (outcome.outcome !== 'reserved') throw new Error(outcome.outcome)
    const notAfter = new Date(at.getTime() + 86_400_000)
    const issued = { certificateId: 'id', certificateChain: ['pem'], notBefore: at, notAfter }
    await registry.record(outcome.reservation, issued, at)
    await registry.close()
    expect(await device('remove SN-1')).toEqual({
      code: 3,
      out: '',
      err: 'certvend-server: SN-1 holds a certificate that is in force\nhint: to revoke it too: certvend-server device remove SN-1 --revoke\n',
    })
    expect((await device('show SN-1')).out).toContain('ACTIVE, until ')
    expect((await device('remove SN-1 --revoke')).code).toBe(0)
  })
})

/** Starts a command that runs until it is told to stop. */
function start(words: readonly string[]) {
  const child = spawn(process.execPath, [main, ...words], {
    cwd: directory,
    env: { TMPDIR: directory },
  })
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    err += chunk
  })
  const lines: string[] = []
  const firstLine = new Promise<string>((resolve, reject) => {
    createInterface(child.stdout).on('line', (line) => {
      lines.push(line)
      resolve(line)
    })
    child.once('exit', (code) => reject(new Error(`exit code ${code}: ${err}`)))
  })
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve))
  return {
    firstLine,
    lines,
    err: () => err,
    async stop(signal: NodeJS.Signals) {
      child.kill(signal)
      return ended
    },
  }
}

describe('certvend-server serve', () => {
  it('vends to a device that is added while it runs, and ends cleanly on SIGTERM', async () => {
    const server = start([
      'serve',
      '--port',
      '0',
      '--listen',
      '127.0.0.1',
      '--certificate-days',
      '7',
    ])
    try {
      const { event, url } = JSON.parse(await server.firstLine)
      expect(event).toBe('listening')
      const pin = readFileSync(join(directory, 'certvend-data', 'tls', 'pin.pem'), 'utf8')
      const { out } = await device('add SN-1')
      const key = await makeDeviceKey()
      const answer = await send(`${url}/v1/enroll`, pin, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${out.trim()}` },
        body: JSON.stringify({ deviceSerial: 'SN-1', csr: await key.csr('SN-1') }),
      })
      expect(answer.status).toBe(200)
      const { endpoint } = JSON.parse(answer.text)
      const root = readFileSync(join(directory, 'certvend-data', 'tls', 'root.pem'), 'utf8')
      expect(endpoint).toEqual({ host: 'localhost', port: 8883, trustAnchors: [root] })
      const [line] = (await device('list --json')).out.split('\n')
      const { certificates } = JSON.parse(line!)
      const days =
        (Date.parse(certificates[0].notAfter) - Date.parse(certificates[0].issuedAt)) / 864e5
      expect(Math.round(days)).toBe(7)
      expect((await device('show SN-1')).out).toContain('state:        enrolled\n')
    } finally {
      expect(await server.stop('SIGTERM')).toBe(0)
    }
    expect(JSON.parse(server.lines.at(-1)!).event).toBe('stopped')
    expect(server.err()).toContain('certvend-server: devices pin ')
  })

  it('says which part of its configuration cannot be used', async () => {
    const file = (name: string, text: string) => {
      const path = join(directory, name)
      writeFileSync(path, text)
      return path
    }
    const nothing = file('nothing.pem', '')
    const html = file('page.pem', '<html>')
    const tls = ['--tls-cert', html, '--tls-key', html]
    for (const [words, code, start] of [
      [['--port', '65536'], 2, '--port <port>: not a port between 0 and 65535\n'],
      [['--host', 'a b'], 2, '--host <name>: not a host name or an IP address\n'],
      [['--certificate-days', '0'], 2, '--certificate-days <days>: not a whole number above 0\n'],
      [['--mqtt-alpn', 'a b'], 2, '--mqtt-alpn <protocol>: an ALPN protocol has'],
      [['--tls-cert', html], 2, '--tls-cert and --tls-key belong together\n'],
      [tls, 2, 'with --tls-cert there is no CA here that could vouch for the MQTT server\n'],
      [['--mqtt-anchors', nothing], 2, `there is no certificate in ${nothing}\n`],
      [
        ['--mqtt-anchors', join(directory, 'x')],
        2,
        `cannot read ${join(directory, 'x')}: ENOENT\n`,
      ],
      [[...tls, '--mqtt-anchors', html], 2, `${html} or ${html} is not PEM\n`],
      [['--data-dir', html], 3, `cannot use the data directory ${html}: EEXIST\n`],
    ] as [string[], number, string][]) {
      const { code: exit, out, err } = await run(['serve', '--port', '0', ...words])
      expect([exit, out], words.join(' ')).toEqual([code, ''])
      expect(err.startsWith(`certvend-server: ${start}`), err).toBe(true)
      expect(err).toContain('\nhint: ')
    }
    expect(existsSync(join(directory, 'certvend-data'))).toBe(false)
  })

  it('does not replace a CA that it cannot read', async () => {
    const data = join(directory, 'data')
    const server = start(['serve', '--port', '0', '--data-dir', data])
    await server.firstLine
    await server.stop('SIGTERM')
    writeFileSync(join(data, 'device-ca.key.pem'), 'half a f')
    const { code, err } = await run(['serve', '--port', '0', '--data-dir', data])
    expect(code).toBe(3)
    expect(err).toMatch(/^certvend-server: cannot use the CA keys in .*\nhint: restore them/)
    expect(readFileSync(join(data, 'device-ca.key.pem'), 'utf8')).toBe('half a f')
  })

  it('says which port is taken', async () => {
    const server = start(['serve', '--port', '0'])
    const { port } = JSON.parse(await server.firstLine)
    const { code, err } = await run(['serve', '--port', String(port), '--data-dir', 'second'])
    expect([code, err]).toEqual([
      1,
      `certvend-server: cannot listen on port ${port}: EADDRINUSE\nhint: another process listens there; stop it, or name another --port\n`,
    ])
    expect(await server.stop('SIGINT')).toBe(0)
  })
})

describe('certvend-server lab', () => {
  it('says what to point a device at, and leaves nothing behind', async () => {
    const lab = start(['lab', '--json', '--serial', 'SN-7'])
    const facts = JSON.parse(await lab.firstLine)
    const { tokenFile } = facts.device
    expect(facts.device.deviceSerial).toBe('SN-7')
    expect(statSync(tokenFile).mode & 0o777).toBe(0o600)
    expect(statSync(facts.stateDir).mode & 0o777).toBe(0o700)
    const pin = readFileSync(facts.pinFile, 'utf8')
    const key = await makeDeviceKey()
    const token = readFileSync(tokenFile, 'utf8').trim()
    const answer = await send(`${facts.vendingUrl}/v1/enroll`, pin, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({ deviceSerial: 'SN-7', csr: await key.csr('SN-7') }),
    })
    expect(answer.status).toBe(200)
    expect(JSON.parse(answer.text).endpoint.port).toBe(facts.mqtt.port)
    const added = await run(['device', 'add', 'SN-8', '--data-dir', facts.dataDir])
    expect(added.code).toBe(0)
    expect(await lab.stop('SIGTERM')).toBe(0)
    expect(existsSync(facts.dataDir)).toBe(false)
    expect(lab.lines).toHaveLength(1)
    expect(lab.err()).not.toContain(token)
  })

  it('says it in words for people', async () => {
    const lab = start(['lab'])
    await lab.firstLine
    expect(await lab.stop('SIGINT')).toBe(0)
    const text = lab.lines.join('\n')
    expect(text).toMatch(/^vending machine {2}https:\/\/localhost:\d+\n/)
    expect(text).toMatch(/\n {2}certvend enroll --server https:\S+ --pin \S+pin\.pem \\\n/)
  })
})
