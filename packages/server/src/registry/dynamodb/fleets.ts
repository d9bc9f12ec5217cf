/** Fleets in DynamoDB: one partition of the ledger, since there are few. */
import { type Registry, registryBusy } from '../registry.ts'
import type { Ledger } from './ledger.ts'
import { ledgerKeys, toFleet } from './rows.ts'
import type { Item } from './tables.ts'

type Fleets = Pick<Registry, 'addFleet' | 'findFleet' | 'fleets' | 'removeFleet'>

export function createFleets(ledger: Ledger): Fleets {
  const { tables, changes, options } = ledger
  const place = (name: string) => ({
    table: options.ledger,
    key: ledgerKeys.fleet(name),
    prefix: '',
  })
  const event = (name: 'fleet-added' | 'fleet-removed', fleet: string, at: Date) =>
    changes.event({ name, deviceSerial: `fleet/${fleet}` }, at)
  const isThere = (item: Item | undefined): item is Item =>
    item !== undefined && item.removed !== true

  /** The item of a fleet; one whose removal was cut short is removed first. */
  async function load(name: string): Promise<Item | undefined> {
    const item = await changes.load(place(name))
    if (item?.removed !== true) return item
    await tables.remove(place(name), { removed: true })
    return undefined
  }

  return {
    addFleet: async (name, token, at) => {
      if (token.kind === 'scrypt') await ledger.noteWeakToken()
      await load(name)
      const item = { tokenKind: token.kind, tokenHash: token.hash, createdAt: at.getTime() }
      const events = [event('fleet-added', name, at)]
      return (await changes.make(place(name), item, { events })) === 'made'
    },

    findFleet: async (name) => {
      const item = await tables.get(place(name))
      return isThere(item) ? toFleet(item) : undefined
    },

    fleets: async () => {
      const found: Item[] = []
      const partition = { pk: 'fleets' }
      for await (const item of tables.query(options.ledger, partition, { prefix: '' }))
        found.push(item)
      return found.filter(isThere).map(toFleet)
    },

    removeFleet: async (name, at) => {
      const item = await load(name)
      if (!item) return false
      const events = [event('fleet-removed', name, at)]
      if (!(await changes.change(place(name), item, { removed: true }, { events })))
        throw registryBusy(new Error('another process changes this fleet'))
      await load(name)
      return true
    },
  }
}
