import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Address, mysqlOptions, parseAddress } from '../src/registry-address.ts'
import { makeWorkplace, type Workplace } from './command.ts'
import { startDynalite } from './dynamodb.ts'
import { noMariadb, startMariadb } from './mariadb.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(join(tmpdir(), 'certvend-address-'))
})
afterEach(() => rmSync(directory, { recursive: true }))

const mysqlAddress = parseAddress('mysql://certvend@db/vending') as Extract<
  Address,
  { kind: 'mysql' }
>

describe('the address of a registry', () => {
  it('is a file, DynamoDB tables or a MySQL database', () => {
    expect(parseAddress(undefined)).toEqual({ kind: 'file' })
    expect(parseAddress('/data/my.db')).toEqual({ kind: 'file', path: '/data/my.db' })
    expect(parseAddress('dynamodb:deviceInfo')).toEqual({
      kind: 'dynamodb',
      options: { table: 'deviceInfo', keepPlainTokens: false },
    })
    expect(
      parseAddress('dynamodb:Devices?ledger=Ledger&shape=iot-atlas&keep-plain-tokens'),
    ).toMatchObject({ options: { ledger: 'Ledger', shape: 'iot-atlas', keepPlainTokens: true } })
    expect(
      parseAddress('mysql://certvend@db.example.com:3307/vending?devices=product&ca=db.pem'),
    ).toEqual({
      kind: 'mysql',
      options: {
        host: 'db.example.com',
        port: 3307,
        user: 'certvend',
        database: 'vending',
        devices: 'product',
        keepPlainTokens: false,
      },
      caFile: 'db.pem',
    })
  })

  it('that says something else is refused, and not repeated', () => {
    for (const text of [
      'postgres://db/vending',
      'dynamodb:',
      'dynamodb:a',
      'dynamodb:deviceInfo?shape=round',
      'dynamodb:deviceInfo?tokens=secret',
      'mysql://db/vending',
      'mysql://certvend@db',
      'mysql://certvend@db/vending?ssl=false',
      'mysql://certvend@db/vending?devices=other',
      'mysql://certvend@db/a`b',
      'mysql://certvend@192.0.2.7/vending',
      'mysql://certvend@127.0.0.1/vending?ca=db.pem',
    ]) {
      let said: unknown
      try {
        parseAddress(text)
      } catch (error) {
        said = error
      }
      expect(said, text).toMatchObject({ exitCode: 2 })
      expect((said as Error).message, text).not.toContain('secret')
    }
  })

  it('with a password in it is refused, without a word of the password', () => {
    expect(() => parseAddress('mysql://certvend:hunter2@db/vending')).toThrow(
      'there is a password in the address',
    )
    expect(() => parseAddress('mysql://certvend:hunter2@db/vending')).not.toThrow('hunter2')
  })

  it('gets its password from a file that nobody else reads, or from a credential of systemd', async () => {
    const file = join(directory, 'password')
    writeFileSync(file, 'hunter2\n', { mode: 0o600 })
    const named = { registryPasswordFile: file }
    expect((await mysqlOptions(mysqlAddress, named, {})).password).toBe('hunter2')
    chmodSync(file, 0o640)
    await expect(mysqlOptions(mysqlAddress, named, {})).rejects.toThrow('read by other users')
    const nowhere = { registryPasswordFile: join(directory, 'x') }
    await expect(mysqlOptions(mysqlAddress, nowhere, {})).rejects.toThrow('ENOENT')
    writeFileSync(join(directory, 'registry-password'), 'from systemd\n')
    const env = { CREDENTIALS_DIRECTORY: directory }
    expect((await mysqlOptions(mysqlAddress, {}, env)).password).toBe('from systemd')
    writeFileSync(join(directory, 'registry-password'), 'none')
    expect(await mysqlOptions(mysqlAddress, {}, env)).not.toHaveProperty('password')
    expect(await mysqlOptions(mysqlAddress, {}, {})).not.toHaveProperty('password')
  })
})

describe('certvend-server', () => {
  let work: Workplace
  beforeEach(() => {
    work = makeWorkplace()
  })
  afterEach(() => work.remove())

  it('keeps devices in the file that was named', async () => {
    const file = join(work.directory, 'my.db')
    const added = await work.run(['device', 'add', 'SN-1', '--registry', file])
    expect([added.code, added.err]).toEqual([0, expect.stringContaining('added SN-1')])
    expect((await work.run(['device', 'list', '--registry', file])).out).toContain('SN-1')
    const other = join(work.directory, 'other.db')
    const { code, err } = await work.run(['device', 'list', '--registry', other])
    expect([code, err]).toEqual([2, expect.stringContaining(`there is no registry in ${other}`)])
  })

  it.skipIf(noMariadb)(
    'works on MariaDB once that was prepared',
    async () => {
      const mariadb = await startMariadb()
      try {
        await mariadb.ask('CREATE DATABASE vending')
        const where = `mysql://root@localhost/vending?socket=${mariadb.socketPath}`
        const run = (...words: string[]) => work.run([...words, '--registry', where])
        const early = await run('device', 'list')
        expect([early.code, early.err]).toEqual([
          2,
          'certvend-server: the database was not prepared\nhint: prepare it: certvend-server registry prepare --registry …\n',
        ])
        const prepared = await run('registry', 'prepare')
        expect([prepared.code, prepared.err]).toEqual([
          0,
          expect.stringContaining('made the table certvend_devices'),
        ])
        expect((await run('registry', 'prepare', '--json')).out).toBe('{"done":[]}\n')
        expect((await run('device', 'add', 'SN-1')).code).toBe(0)
        expect((await run('device', 'show', 'SN-1')).out).toContain('state:        waiting\n')
      } finally {
        await mariadb.stop()
      }
    },
    60_000,
  )

  it('says in words that a table is not there', async () => {
    const { endpoint, stop } = await startDynalite()
    const env = { AWS_ENDPOINT_URL: endpoint, AWS_REGION: 'eu-west-1' }
    const keys = { AWS_ACCESS_KEY_ID: 'nobody', AWS_SECRET_ACCESS_KEY: 'nothing' }
    const words = ['device', 'list', '--registry', 'dynamodb:deviceInfo']
    const { code, err } = await work.run(words, '', { ...env, ...keys })
    await stop()
    expect(code).toBe(2)
    expect(err).toContain('certvend-server: a table of the registry is not there\nhint: ')
  })
})
