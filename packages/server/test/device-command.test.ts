import { chmodSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openLibsqlRegistry } from '../src/registry/libsql.ts'
import { makeWorkplace, type Workplace } from './command.ts'

let directory: string
let run: Workplace['run']
let device: Workplace['device']
let remove: () => void
beforeEach(() => {
  ;({ directory, run, device, remove } = makeWorkplace())
})
afterEach(() => remove())

describe('certvend-server', () => {
  it('shows worked examples for everything it can do', async () => {
    const all = [[], ['serve'], ['device'], ['fleet'], ['lab']]
    const runs = await Promise.all(all.map((words) => run([...words, '--help'])))
    for (const [index, words] of all.entries()) {
      const { code, out, err } = runs[index]!
      expect([code, err]).toEqual([0, ''])
      expect(out).toContain(
        `  $ ${words.length === 1 && words[0] === 'device' ? '(umask' : 'certvend-server'}`,
      )
    }
  })

  it('never exits with 0 when it did nothing', async () => {
    const all = [[], ['device'], ['nonsense'], ['device', 'nonsense'], ['device', 'add']]
    const runs = await Promise.all(all.map((words) => run(words)))
    for (const [index, words] of all.entries()) {
      const { code, out, err } = runs[index]!
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
    const made = `certvend-server: made a registry, ${join(directory, 'certvend-data', 'registry.db')}\n`
    expect(err).toBe(`${made}certvend-server: added SN-0001; its token is shown only now\n`)
    expect((await device('add SN-0002')).err).not.toContain('made a registry')
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
      err: expect.stringMatching(
        /\ncertvend-server: warning: the token is weak; it could be found by trying\ncertvend-server: added SN-1\n$/,
      ),
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
    const refusals: [string[], number, string][] = [
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
    ]
    const runs = await Promise.all(refusals.map(([words]) => run(['device', ...words])))
    for (const [index, [words, code, err]] of refusals.entries())
      expect(runs[index], words.join(' ')).toEqual({ code, out: '', err })
    expect((await device('list')).out.trim().split('\n')).toHaveLength(2)
  })

  it('refuses what is no token', async () => {
    const words = ['device', 'add', 'SN-1', '--token-file', '-']
    const texts = ['', 'short', 'two words here', 'x'.repeat(513), 'ünïcödé-token']
    const runs = await Promise.all(texts.map((text) => run(words, text)))
    for (const [index, text] of texts.entries()) {
      const { code, err, out } = runs[index]!
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
