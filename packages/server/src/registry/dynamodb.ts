/**
 * The registry in DynamoDB: on the table that an older vending machine left, or a new one of its
 * shape, and one ledger beside it. See `dynamodb/rows.ts` for what lies where and
 * `dynamodb/changes.ts` for how it stays whole.
 */
import type { DynamoDBClient } from '@aws-sdk/client-dynamodb'
import { createChanges } from './dynamodb/changes.ts'
import { createClaims } from './dynamodb/claims.ts'
import { createDevices } from './dynamodb/devices.ts'
import { createFleets } from './dynamodb/fleets.ts'
import { createHoldings } from './dynamodb/holdings.ts'
import { createLedger, type LedgerOptions } from './dynamodb/ledger.ts'
import { ledgerKeys, type ShapeName, shapes, toAuditEvent } from './dynamodb/rows.ts'
import { openTables } from './dynamodb/tables.ts'
import type { AuditEvent, Registry } from './registry.ts'

export interface DynamodbOptions {
  /** The device table, such as `deviceInfo`. */
  readonly table: string
  /** The table for the rest; `<table>-certvend` by default. */
  readonly ledger?: string
  /** Whose columns the device table has; `device-info` by default. */
  readonly shape?: ShapeName
  /**
   * Leaves tokens in the clear where an older function needs them, if it must be put back; false by
   * default: the first accepted claim replaces its token by a hash.
   */
  readonly keepPlainTokens?: boolean
  /** A client of the caller's own; by default one from the environment, as the AWS SDK reads it. */
  readonly client?: DynamoDBClient
}

/** Opens the registry; nothing is asked of DynamoDB until it is used. */
export function openDynamodbRegistry(options: DynamodbOptions): Registry {
  const { table, keepPlainTokens = false } = options
  const names: LedgerOptions = {
    table,
    ledger: options.ledger ?? `${table}-certvend`,
    keepPlainTokens,
  }
  const tables = openTables(options.client)
  const changes = createChanges(tables, names.ledger)
  const ledger = createLedger(tables, changes, shapes[options.shape ?? 'device-info'], names)

  return {
    ...createDevices(ledger),
    ...createClaims(ledger),
    ...createHoldings(ledger),
    ...createFleets(ledger),
    hasWeakTokens: ledger.hasWeakTokens,

    events: async ({ deviceSerial, after, limit }) => {
      // What a crash left undelivered belongs to the trail.
      if (deviceSerial !== undefined && !deviceSerial.includes('/'))
        await ledger.anyRow(deviceSerial)
      const partition: Record<string, string> =
        deviceSerial === undefined ? { trail: 'trail' } : { pk: `device#${deviceSerial}` }
      const found: AuditEvent[] = []
      const range = {
        prefix: 'event#',
        limit,
        ...(after !== undefined && { after: `event#${after}` }),
        ...(deviceSerial === undefined && { index: 'trail' }),
      }
      for await (const item of tables.query(names.ledger, partition, range)) {
        found.push(toAuditEvent(item))
        if (found.length === limit) break
      }
      return found
    },

    keyHolder: async (publicKey) => {
      const held = await tables.get({ table: names.ledger, key: ledgerKeys.publicKey(publicKey) })
      return held && String(held.deviceSerial)
    },

    noteUnknown: async (certificateId, caCertificateId, at) => {
      const deviceSerial = `ca/${caCertificateId}`
      const key = ledgerKeys.unknown(certificateId)
      const name = 'certificate-unknown' as const
      const event = changes.event({ name, deviceSerial, certificateId }, at)
      // The mark carries the event, so that whoever finds a mark can be sure of the event.
      const made = await changes.make(
        { table: names.ledger, key, prefix: '' },
        {},
        { events: [event] },
      )
      if (made === 'taken') await changes.load({ table: names.ledger, key, prefix: '' })
      return made === 'made'
    },

    check: async () => {
      await ledger.tables.get(ledger.device('-'))
      await ledger.hasWeakTokens()
    },
    close: async () => tables.close(),
  }
}
