/** What the parts of the DynamoDB registry share: places, rows, certificates, and the mark of weak tokens. */
import type { Certificate } from '../registry.ts'
import { type Changes, certificatePlace } from './changes.ts'
import { column, ledgerKeys, type Shape, toCertificate } from './rows.ts'
import type { Item, Ref, Tables } from './tables.ts'

export interface LedgerOptions {
  readonly table: string
  readonly ledger: string
  readonly keepPlainTokens: boolean
}

export interface Ledger {
  readonly tables: Tables
  readonly changes: Changes
  readonly shape: Shape
  readonly options: LedgerOptions
  /** Where a device's row is. */
  device(deviceSerial: string): Ref & { readonly prefix: string }
  /** The row of a device that was not removed. */
  row(deviceSerial: string): Promise<Item | undefined>
  /** The same as it lies there: what it still carries is not delivered. */
  peek(deviceSerial: string): Promise<Item | undefined>
  /** The row, also of a device that is being removed. */
  anyRow(deviceSerial: string): Promise<Item | undefined>
  certificate(certificateId: string): Promise<Certificate | undefined>
  /** The item of a certificate, and where it is. */
  findItem(certificateId: string): Promise<{ item: Item; sk: string } | undefined>
  /** The items of a device's certificates, newest first. */
  items(deviceSerial: string): Promise<readonly Item[]>
  certificates(deviceSerial: string): Promise<readonly Certificate[]>
  noteWeakToken(): Promise<void>
  hasWeakTokens(): Promise<boolean>
}

const unlessRemoved = (row: Item | undefined): Item | undefined =>
  row?.[column('removed')] === true ? undefined : row

export function createLedger(
  tables: Tables,
  changes: Changes,
  shape: Shape,
  options: LedgerOptions,
): Ledger {
  const device: Ledger['device'] = (deviceSerial) => ({
    table: options.table,
    key: { [shape.serial]: deviceSerial },
    prefix: column(''),
  })
  const anyRow: Ledger['anyRow'] = (deviceSerial) => changes.load(device(deviceSerial))

  const findItem: Ledger['findItem'] = async (certificateId) => {
    const key = ledgerKeys.pointer(certificateId)
    const pointer = await tables.get({ table: options.ledger, key })
    if (!pointer) return undefined
    const sk = String(pointer.at)
    const place = certificatePlace(options.ledger, String(pointer.deviceSerial), sk)
    const item = await changes.load(place)
    return item && { item, sk }
  }

  const items: Ledger['items'] = async (deviceSerial) => {
    const found: Item[] = []
    const partition = { pk: `device#${deviceSerial}` }
    const range = { prefix: 'certificate#', newestFirst: true }
    for await (const item of tables.query(options.ledger, partition, range)) {
      const place = certificatePlace(options.ledger, deviceSerial, String(item.sk))
      await changes.settle(place, item)
      found.push(item)
    }
    return found
  }

  let weak = false
  const weakMark = { table: options.ledger, key: ledgerKeys.weakTokens() }
  return {
    tables,
    changes,
    shape,
    options,
    device,
    anyRow,
    row: async (deviceSerial) => unlessRemoved(await anyRow(deviceSerial)),
    peek: async (deviceSerial) => unlessRemoved(await changes.peek(device(deviceSerial))),
    findItem,
    certificate: async (certificateId) => {
      const found = await findItem(certificateId)
      return found && toCertificate(found.item)
    },
    items,
    certificates: async (deviceSerial) => (await items(deviceSerial)).map(toCertificate),
    noteWeakToken: async () => {
      if (!weak) await tables.putNew(weakMark, {})
      weak = true
    },
    hasWeakTokens: async () => {
      weak ||= (await tables.get(weakMark)) !== undefined // it stays, once it is there
      return weak
    },
  }
}
