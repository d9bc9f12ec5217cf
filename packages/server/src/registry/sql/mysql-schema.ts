/**
 * The registry's tables in MySQL and MariaDB, and how they get there: by a command, never by a server
 * that starts. Instants are milliseconds since 1970. Every step can be repeated.
 */
import type { DeviceTable } from './work.ts'

export const schemaVersion = 1

const bin = 'CHARACTER SET utf8mb4 COLLATE utf8mb4_bin'

/** What a device has besides its names: the same in a table of ours and in an adopted one. */
const deviceColumns: readonly (readonly [name: string, type: string])[] = [
  ['thing_type', `VARCHAR(128) ${bin} NULL`],
  ['attributes', `TEXT ${bin} NULL`],
  ['fleet', `VARCHAR(128) ${bin} NULL`],
  ['token_kind', `VARCHAR(8) ${bin} NULL`],
  ['token_hash', `VARCHAR(128) ${bin} NULL`],
  ['claim_number', 'INT NOT NULL DEFAULT 1'],
  ['claim_open_until', 'BIGINT NULL'],
  ['claim_public_key', `VARCHAR(64) ${bin} NULL`],
  ['claim_certificate_serial', `VARCHAR(64) ${bin} NULL`],
  ['claim_reserved_at', 'BIGINT NULL'],
  ['claim_certificate_id', `VARCHAR(64) ${bin} NULL`],
  ['claim_again', 'TINYINT NOT NULL DEFAULT 0'],
  ['claim_certificates', 'INT NOT NULL DEFAULT 0'],
  ['claim_first_at', 'BIGINT NULL'],
  ['created_at', 'BIGINT NULL'],
  ['changed_at', 'BIGINT NULL'],
]

const ownTables = `
CREATE TABLE IF NOT EXISTS certvend_public_keys (
  public_key VARCHAR(64) PRIMARY KEY,
  device_serial VARCHAR(128) NOT NULL
) ENGINE=InnoDB ${bin};

CREATE TABLE IF NOT EXISTS certvend_certificates (
  rowid BIGINT AUTO_INCREMENT PRIMARY KEY,
  certificate_id VARCHAR(64) NOT NULL UNIQUE,
  device_serial VARCHAR(128) NOT NULL,
  certificate_serial VARCHAR(64) NOT NULL UNIQUE,
  public_key VARCHAR(64) NOT NULL,
  chain TEXT NOT NULL,
  status VARCHAR(8) NOT NULL,
  thing_name VARCHAR(128) NOT NULL,
  policy_name VARCHAR(128) NULL,
  not_before BIGINT NOT NULL,
  not_after BIGINT NOT NULL,
  issued_at BIGINT NOT NULL,
  confirmed_at BIGINT NULL,
  certificate_arn VARCHAR(255) NULL,
  INDEX certvend_of_device (device_serial, issued_at),
  INDEX certvend_of_key (public_key)
) ENGINE=InnoDB ${bin};

CREATE TABLE IF NOT EXISTS certvend_fleets (
  name VARCHAR(128) PRIMARY KEY,
  token_kind VARCHAR(8) NOT NULL,
  token_hash VARCHAR(128) NOT NULL,
  created_at BIGINT NOT NULL
) ENGINE=InnoDB ${bin};

CREATE TABLE IF NOT EXISTS certvend_audit (
  id BIGINT AUTO_INCREMENT PRIMARY KEY,
  at BIGINT NOT NULL,
  name VARCHAR(32) NOT NULL,
  device_serial VARCHAR(128) NOT NULL,
  certificate_id VARCHAR(64) NULL,
  public_key VARCHAR(64) NULL,
  remote_address VARCHAR(64) NULL,
  note VARCHAR(255) NULL,
  INDEX certvend_of_device (device_serial, id)
) ENGINE=InnoDB ${bin};

CREATE TABLE IF NOT EXISTS certvend_schema (version INT PRIMARY KEY) ENGINE=InnoDB;
`

/** The table of the 2017 vending machine (Express and MySQL). */
export const productTable: DeviceTable = {
  name: 'product',
  select: [
    'seriaNum AS device_serial',
    'certvend_thing AS thing_name',
    `NULLIF(policyName, '') AS policy_name`,
    'CASE WHEN applyState = 1 THEN 0 ELSE 1 END AS disabled',
    'accessToken AS plain_token',
    ...deviceColumns.map(([name]) => `certvend_${name} AS ${name}`),
  ].join(', '),
  serial: 'seriaNum',
  thing: 'certvend_thing',
  column: (name) =>
    ({ thing_name: 'thingName', policy_name: 'policyName', disabled: 'applyState' })[name] ??
    `certvend_${name}`,
  // Its collation may take upper for lower case; the index is used all the same.
  hasSerial: 'seriaNum = :deviceSerial AND BINARY seriaNum = :deviceSerial',
  disabled: '1 - :disabled',
  plainToken: 'accessToken',
}

export const ownTable: DeviceTable = {
  name: 'certvend_devices',
  select: '*',
  serial: 'device_serial',
  thing: 'thing_name',
  column: (name) => name,
  hasSerial: 'device_serial = :deviceSerial',
  disabled: ':disabled',
}

/** Asks the database, as the command that prepares it does: in order, each statement by itself. */
export type Ask = (
  sql: string,
) => Promise<readonly Readonly<Record<string, string | number | null>>[]>

/**
 * Makes what is missing.
 *
 * @returns what was done, one line each; nothing if all was there
 * @throws Error if the adopted table is not the one it should be, or two of its rows are one thing
 */
export async function prepareSchema(ask: Ask, devices: 'own' | 'product'): Promise<string[]> {
  const done: string[] = []
  const exists = async (table: string) =>
    (
      await ask(`SELECT 1 FROM information_schema.tables
        WHERE table_schema = DATABASE() AND table_name = '${table}'`)
    ).length > 0
  for (const statement of ownTables.split(';\n').filter((text) => text.trim())) {
    const [, name = ''] = /CREATE TABLE IF NOT EXISTS (\w+)/.exec(statement) ?? []
    if (await exists(name)) continue
    await ask(statement)
    done.push(`made the table ${name}`)
  }
  for (const [event, word] of [
    ['UPDATE', 'changed'],
    ['DELETE', 'removed'],
  ]) {
    const name = `certvend_audit_is_not_${word}`
    const [there] = await ask(`SELECT 1 FROM information_schema.triggers
      WHERE trigger_schema = DATABASE() AND trigger_name = '${name}'`)
    if (there) continue
    await ask(`CREATE TRIGGER ${name} BEFORE ${event} ON certvend_audit FOR EACH ROW
      SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the audit trail is append-only'`)
    done.push(`made the trigger ${name}`)
  }
  if (devices === 'product') done.push(...(await adoptProduct(ask)))
  else if (!(await exists(ownTable.name))) {
    const columns = deviceColumns.map(([name, type]) => `${name} ${type}`).join(',\n')
    await ask(`CREATE TABLE ${ownTable.name} (
      device_serial VARCHAR(128) PRIMARY KEY,
      thing_name VARCHAR(128) NOT NULL UNIQUE,
      policy_name VARCHAR(128) NULL,
      disabled TINYINT NOT NULL DEFAULT 0,
      ${columns},
      INDEX certvend_weak (token_kind)
    ) ENGINE=InnoDB ${bin}`)
    done.push(`made the table ${ownTable.name}`)
  }
  const [version] = await ask('SELECT version FROM certvend_schema')
  if (!version) await ask(`INSERT INTO certvend_schema (version) VALUES (${schemaVersion})`)
  return done
}

/** Puts our columns beside the old ones; no old column and no row is changed. */
async function adoptProduct(ask: Ask): Promise<string[]> {
  const done: string[] = []
  const found = await ask(`SELECT column_name AS name FROM information_schema.columns
    WHERE table_schema = DATABASE() AND table_name = 'product'`)
  const there = new Set(found.map((row) => String(row.name)))
  const missing = ['seriaNum', 'accessToken', 'applyState', 'thingName', 'policyName'].filter(
    (name) => !there.has(name),
  )
  if (missing.length > 0)
    throw new Error(`there is no table 'product' with the columns ${missing.join(', ')}`)
  const [twin] = await ask(`SELECT COALESCE(NULLIF(thingName, ''), seriaNum) AS thing
    FROM product GROUP BY thing HAVING count(*) > 1 LIMIT 1`)
  if (twin) throw new Error(`two rows of 'product' are the thing ${twin.thing}`)
  const add = async (name: string, what: string) => {
    if (there.has(name)) return
    await ask(`ALTER TABLE product ADD COLUMN ${name} ${what}`)
    done.push(`added the column product.${name}`)
  }
  const thing = `VARCHAR(255) GENERATED ALWAYS AS (COALESCE(NULLIF(thingName, ''), seriaNum)) STORED`
  await add('certvend_thing', `${thing}, ADD UNIQUE INDEX certvend_thing (certvend_thing)`)
  for (const [name, type] of deviceColumns) await add(`certvend_${name}`, type)
  const [index] = await ask(`SELECT 1 FROM information_schema.statistics
    WHERE table_schema = DATABASE() AND table_name = 'product' AND column_name = 'seriaNum'
      AND seq_in_index = 1 AND non_unique = 0`)
  if (!index) {
    await ask('ALTER TABLE product ADD UNIQUE INDEX certvend_serial (seriaNum)')
    done.push('added a unique index on product.seriaNum')
  }
  return done
}
