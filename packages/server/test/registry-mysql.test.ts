/** MySQL by MariaDB, which the tests start for themselves. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { day, later, systemClock } from '../src/clock.ts'
import { makeCa, makeServer } from '../src/pki.ts'
import { openMysqlRegistry } from '../src/registry/mysql.ts'
import { isRegistryBusy } from '../src/registry/registry.ts'
import { type MysqlOptions, prepareMysql } from '../src/registry/sql/mysql.ts'
import { identityOptions } from '../src/tls.ts'
import { makeDeviceKey } from './device.ts'
import { startMachine } from './machine.ts'
import { type Mariadb, noMariadb, startMariadb } from './mariadb.ts'
import { add, issued, now, reservation, reserve, token } from './registry-suite/facts.ts'
import { describeRegistry } from './registry-suite/suite.ts'

/** Databases of one server, each new and prepared. */
function databases(server: () => Mariadb) {
  let made = 0
  return async (before = '', changes: Partial<MysqlOptions> = {}) => {
    made += 1
    const database = `registry_${made}`
    const { ask, socketPath } = server()
    await ask(`CREATE DATABASE ${database} CHARACTER SET utf8mb3 COLLATE utf8mb3_general_ci`)
    if (before) await ask(before, database)
    const login = { host: 'localhost', port: 3306, socketPath, user: 'root' }
    const options: MysqlOptions = { ...login, database, ...changes }
    return { options, ask: (sql: string) => ask(sql, database) }
  }
}

describeRegistry(
  'MariaDB',
  async () => {
    const server = await startMariadb()
    const make = databases(() => server)
    return {
      async make() {
        const { options, ask } = await make()
        await prepareMysql(options)
        return {
          open: () => openMysqlRegistry(options),
          remove: async () => void (await ask(`DROP DATABASE ${options.database}`)),
        }
      },
      stop: server.stop,
    }
  },
  { skip: noMariadb },
)

/** As the 2017 vending machine had it. */
const product = `CREATE TABLE product (
  id INT AUTO_INCREMENT PRIMARY KEY,
  seriaNum VARCHAR(255) NOT NULL,
  accessToken VARCHAR(255),
  applyState INT DEFAULT 0,
  thingName VARCHAR(255),
  policyName VARCHAR(255)
);`
const rowsOf = (...rows: string[]) =>
  `INSERT INTO product (seriaNum, accessToken, applyState, thingName, policyName) VALUES ${rows.join(', ')};`

describe.skipIf(noMariadb)('a database that is reached by TLS', () => {
  it('is verified, its chain and its name, and the server may do less than who prepared it', async () => {
    const at = systemClock.now()
    const year = { notBefore: later(at, -day), notAfter: later(at, 365 * day) }
    const [ca, other] = [
      await makeCa({ commonName: 'Database CA', ...year }),
      await makeCa({ commonName: 'Another CA', ...year }),
    ]
    const identity = identityOptions(
      await makeServer({ issuer: ca, names: ['localhost'], ...year }),
    )
    const directory = mkdtempSync(join(tmpdir(), 'certvend-mariadb-tls-'))
    const path = (name: string, text: string) => {
      writeFileSync(join(directory, name), text, { mode: 0o600 })
      return join(directory, name)
    }
    const server = await startMariadb({
      port: await freePort(),
      extra: [
        `--ssl-cert=${path('cert.pem', identity.cert)}`,
        `--ssl-key=${path('key.pem', identity.key)}`,
      ],
    })
    try {
      await server.ask(`CREATE DATABASE vending;
        CREATE USER 'admin'@'%' IDENTIFIED BY 'admin-secret' REQUIRE SSL;
        CREATE USER 'certvend'@'%' IDENTIFIED BY 'server-secret' REQUIRE SSL;
        GRANT ALL ON vending.* TO 'admin'@'%';`)
      const where = { host: 'localhost', port: server.port, database: 'vending' }
      const admin = { ...where, user: 'admin', password: 'admin-secret' }
      await prepareMysql({ ...admin, ca: ca.certificate })
      await server.ask(`GRANT SELECT, INSERT, UPDATE, DELETE ON vending.* TO 'certvend'@'%'`)
      const login = { ...where, user: 'certvend', password: 'server-secret' }
      const registry = await openMysqlRegistry({ ...login, ca: ca.certificate })
      expect(await add(registry, 'SN-1')).toBe('added')
      await registry.close()
      const refused = (changes: Partial<MysqlOptions>) =>
        openMysqlRegistry({ ...login, ca: ca.certificate, ...changes }).then(
          () => 'opened',
          (error: Error) => error.message,
        )
      expect(await refused({ ca: other.certificate })).toMatch(/certificate/)
      expect(await refused({ host: '127.0.0.1' })).toContain('named by its name')
      expect(await refused({ password: 'wrong' })).toContain('Access denied')
      const { ca: _, ...plain } = { ...login, ca: '' }
      expect(await openMysqlRegistry(plain).catch((error: Error) => error.message)).toContain(
        'Access denied', // without TLS the database lets nobody in, as it was told
      )
      const stranger = await makeServer({ issuer: ca, names: ['db.example'], ...year })
      path('cert.pem', identityOptions(stranger).cert)
      path('key.pem', identityOptions(stranger).key)
      await server.ask('FLUSH SSL')
      expect(await refused({})).toMatch(/does not match certificate's altnames/)
    } finally {
      await server.stop()
      rmSync(directory, { recursive: true })
    }
  }, 60_000)
})

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => server.once('listening', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

describe.skipIf(noMariadb)('the registry in MariaDB', () => {
  let server: Mariadb
  const make = databases(() => server)
  beforeAll(async () => {
    server = await startMariadb()
  }, 60_000)
  afterAll(() => server?.stop())

  const adopt = async (rows: string, changes: Partial<MysqlOptions> = {}) => {
    const made = await make(product + rows, { devices: 'product', ...changes })
    const done = await prepareMysql(made.options)
    const registry = await openMysqlRegistry(made.options)
    const row = async (serial: string) => {
      const [found] = (await made.ask(
        `SELECT * FROM product WHERE BINARY seriaNum = '${serial}'`,
      )) as Record<string, unknown>[]
      return found
    }
    return { ...made, registry, row, done }
  }

  it('is made by a command that says what it did, and does nothing the second time', async () => {
    const { options } = await make()
    await expect(openMysqlRegistry(options)).rejects.toThrow('was not prepared')
    const done = await prepareMysql(options)
    expect(done).toContain('made the table certvend_devices')
    expect(await prepareMysql(options)).toEqual([])
    const registry = await openMysqlRegistry(options)
    await registry.check()
    await registry.close()
  })

  it('of another version is not touched', async () => {
    const { options, ask } = await make()
    await prepareMysql(options)
    await ask('UPDATE certvend_schema SET version = 99')
    await expect(openMysqlRegistry(options)).rejects.toThrow('schema version 99')
  })

  it('has a trail that nobody changes or shortens', async () => {
    const { options, ask } = await make()
    await prepareMysql(options)
    const registry = await openMysqlRegistry(options)
    await add(registry, 'SN-1')
    for (const sql of ['DELETE FROM certvend_audit', `UPDATE certvend_audit SET name = 'nothing'`])
      await expect(ask(sql)).rejects.toThrow('append-only')
    expect(await registry.events({ limit: 10 })).toHaveLength(1)
    await registry.close()
  })

  it('tells upper from lower case, whatever the database does by default', async () => {
    const { options } = await make()
    await prepareMysql(options)
    const registry = await openMysqlRegistry(options)
    await add(registry, 'SN-1')
    expect(await registry.find('sn-1')).toBeUndefined()
    expect(await add(registry, 'sn-1')).toBe('added')
    expect(await registry.certificates('sn-1')).toEqual([])
    await registry.close()
  })

  it('that is not there now is busy, and a server in the wrong place is not', async () => {
    const { options } = await make()
    const nowhere = { ...options, socketPath: '/nowhere/socket' }
    const outcome = await openMysqlRegistry(nowhere).catch((error: unknown) => error)
    expect((outcome as Error).message).toContain('busy')
    const stranger = { ...options, user: 'nobody' }
    const denied = await openMysqlRegistry(stranger).catch((error: unknown) => error)
    expect(isRegistryBusy(denied)).toBe(false)
    expect((denied as Error).message).toContain('Access denied')
  })

  describe("on the table 'product'", () => {
    const old = `('SN-1', 'burned-in-token', 1, 'gateway-1', 'pubsub')`

    it('finds its rows as devices, and changes none of them by being prepared', async () => {
      const { registry, row, done } = await adopt(rowsOf(old, `('SN-2', NULL, 0, NULL, '')`))
      expect(done).toContain('added a unique index on product.seriaNum')
      expect(await registry.find('SN-1')).toMatchObject({
        thingName: 'gateway-1',
        policyName: 'pubsub',
        disabled: false,
        claim: { number: 1, token: { kind: 'plain' } },
      })
      const second = await registry.find('SN-2')
      expect(second).toEqual({
        deviceSerial: 'SN-2',
        thingName: 'SN-2',
        disabled: true,
        claim: { number: 1 },
      })
      expect(await registry.find('sn-1')).toBeUndefined()
      expect((await registry.list({ limit: 10 })).map((one) => one.deviceSerial)).toEqual([
        'SN-1',
        'SN-2',
      ])
      expect(await row('SN-1')).toMatchObject({ accessToken: 'burned-in-token', applyState: 1 })
      await registry.close()
    })

    it('takes the old token, and the first accepted claim replaces it by a hash', async () => {
      const { registry, row } = await adopt(rowsOf(old))
      const machine = await startMachine({ registry })
      const device = { deviceSerial: 'SN-1', token: 'burned-in-token', key: await makeDeviceKey() }
      expect((await machine.enroll(device, { token: 'burned-in-tokem' })).status).toBe(401)
      expect((await row('SN-1'))?.accessToken).toBe('burned-in-token')
      const { status, reply } = await machine.enroll(device)
      expect([status, reply.thingName]).toEqual([200, 'gateway-1'])
      const after = await row('SN-1')
      expect(after).toMatchObject({ accessToken: null, certvend_token_kind: 'scrypt' })
      expect(JSON.stringify(after)).not.toContain('burned-in-token')
      expect((await machine.enroll(device)).status).toBe(200)
      await registry.close()
    })

    it('keeps the token where the old server must be able to come back, until a new one is given', async () => {
      const { registry, row } = await adopt(rowsOf(old), { keepPlainTokens: true })
      await registry.record(await reservation(registry, 'SN-1', 'key'), issued(), now)
      expect((await row('SN-1'))?.accessToken).toBe('burned-in-token')
      await registry.rearm('SN-1', { token, openUntil: later(now, day), revoke: false }, now)
      expect((await row('SN-1'))?.accessToken).toBeNull()
      await registry.close()
    })

    it('writes applyState, and reads what the old server or its operator wrote there', async () => {
      const { registry, row, ask } = await adopt(rowsOf(old))
      await registry.setDisabled('SN-1', true, now)
      expect((await row('SN-1'))?.applyState).toBe(0)
      expect(await reserve(registry, 'SN-1', 'key')).toMatchObject({ reason: 'device-disabled' })
      await ask('UPDATE product SET applyState = 1')
      expect((await reserve(registry, 'SN-1', 'key')).outcome).toBe('reserved')
      await registry.close()
    })

    it('adds devices to it, and gives no thing name twice', async () => {
      const { registry, row } = await adopt(rowsOf(old))
      const twin = { deviceSerial: 'SN-2', thingName: 'gateway-1' }
      expect(await registry.add(twin, token, now)).toBe('thing-name-taken')
      expect(await registry.add({ ...twin, thingName: 'gateway-2' }, token, now)).toBe('added')
      expect(await row('SN-2')).toMatchObject({ thingName: 'gateway-2', applyState: 1 })
      await registry.close()
    })

    it('is not prepared where two rows are one thing, or where it is another table', async () => {
      const twins = rowsOf(old, `('SN-2', 't', 1, 'gateway-1', '')`)
      const made = await make(product + twins, { devices: 'product' })
      await expect(prepareMysql(made.options)).rejects.toThrow('are the thing gateway-1')
      const other = await make('CREATE TABLE product (seriaNum TEXT);', { devices: 'product' })
      await expect(prepareMysql(other.options)).rejects.toThrow(
        'columns accessToken, applyState, thingName, policyName',
      )
    })
  })
})
