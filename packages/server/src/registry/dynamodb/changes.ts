/**
 * Changes that take their consequences with them.
 *
 * DynamoDB writes one item atomically, and a change of a device also is an audit event, perhaps a
 * certificate, perhaps the end of older certificates. So the one conditional UpdateItem that decides
 * carries all of that along, in an attribute of its own (`…outbox_ID`); what it carries is then put
 * where it belongs, and the attribute removed. Whoever reads an item with such an attribute, after a
 * crash or in the middle of it, delivers it first: every delivery can be repeated.
 *
 * The condition is always the same: the item's version is the one that was judged. Who loses reads
 * and judges again.
 *
 * Versions are a Lamport clock: whoever changes an item has a higher number than everything it has
 * read, and gives that number to its events, so that events of one instant have the order in which
 * they were caused.
 *
 * An answer of DynamoDB that got lost is found out the same way: the attribute is there, so the
 * change was ours.
 */
import { randomBytes } from 'node:crypto'
import type { AuditEvent, CertificateStatus } from '../registry.ts'
import { type EventItem, ledgerKeys } from './rows.ts'
import type { Item, Ref, Tables } from './tables.ts'

/** What a change brings about elsewhere. */
export interface Consequences {
  /**
   * The thing name that a new device has taken. It is made sure of only now that the device is there;
   * if somebody else has it meanwhile, the device is withdrawn and nothing else of this happens.
   */
  readonly thingName?: string
  readonly events: readonly EventItem[]
  /** A certificate to put into the ledger, under the id that orders it. */
  readonly certificate?: { readonly id: string; readonly item: Item }
  /** Certificates that are REVOKED now, each with the audit event that says so. */
  readonly revoked?: readonly { readonly sk: string; readonly event: EventItem }[]
}

/** Where an item keeps its version and its outboxes: columns of ours in the device table. */
interface Place extends Ref {
  readonly prefix: string
}

export interface Changes {
  /** The next id: later than those of earlier instants, and than everything that was read so far. */
  nextId(at: Date): string
  event(fields: Omit<AuditEvent, 'id' | 'at'>, at: Date): EventItem
  /** Puts an event that changes nothing else. */
  note(event: EventItem): Promise<void>
  /** Delivers what an item that was read by other ways still carries. @returns false if it is gone */
  settle(place: Place, item: Item): Promise<boolean>
  /** Reads an item as it lies there. */
  peek(place: Place): Promise<Item | undefined>
  /** Reads an item, and delivers what it still carries. */
  load(place: Place): Promise<Item | undefined>
  /** Makes an item where there is none. */
  make(
    place: Place,
    item: Item,
    consequences: Consequences,
  ): Promise<'made' | 'taken' | 'withdrawn'>
  /** Changes the item that was read as `seen`. @returns undefined if it is not that any more */
  change(place: Place, seen: Item, set: Item, consequences: Consequences): Promise<Item | undefined>
}

export const certificatePlace = (ledger: string, deviceSerial: string, sk: string): Place => ({
  table: ledger,
  key: { pk: `device#${deviceSerial}`, sk },
  prefix: '',
})

export function createChanges(tables: Tables, ledger: string): Changes {
  let counter = 0
  const nextId = (at: Date): string => {
    counter += 1
    const random = randomBytes(3).toString('hex')
    return `${String(at.getTime()).padStart(15, '0')}-${String(counter).padStart(9, '0')}-${random}`
  }
  const event: Changes['event'] = (fields, at) => ({ ...fields, id: nextId(at), at: at.getTime() })

  const put = (key: Ref['key'], item: Item) => tables.putNew({ table: ledger, key }, item)

  const note = async (noted: EventItem): Promise<void> => {
    await put(ledgerKeys.event(noted.deviceSerial, noted.id), { ...noted, trail: 'trail' })
  }

  /** @param version the item's. @returns false if the item was withdrawn */
  async function deliver(
    place: Place,
    outbox: string,
    consequences: Consequences,
    version: unknown,
  ): Promise<boolean> {
    const { thingName, certificate, revoked = [], events } = consequences
    if (thingName !== undefined && !(await makeSure(thingName, Object.values(place.key)[0]!))) {
      await tables.remove(place, { [`${place.prefix}version`]: version })
      return false
    }
    if (certificate) {
      const { id, item } = certificate
      const key = ledgerKeys.certificate(String(item.deviceSerial), id)
      await put(key, item)
      const { deviceSerial } = item
      await put(ledgerKeys.pointer(String(item.certificateId)), { deviceSerial, at: key.sk })
    }
    for (const { sk, event: told } of revoked) await revoke(told, sk)
    for (const told of events) await note(told)
    // Nothing depends on the version here, and a row that is gone takes its outbox with it.
    await tables.update(place, { [outbox]: undefined }, {})
    return true
  }

  async function makeSure(thingName: string, deviceSerial: string): Promise<boolean> {
    const ref = { table: ledger, key: ledgerKeys.thing(thingName) }
    return (await tables.update(ref, { settled: true }, { deviceSerial })) !== undefined
  }

  async function revoke(told: EventItem, sk: string): Promise<void> {
    const place = certificatePlace(ledger, told.deviceSerial, sk)
    for (;;) {
      const item = await load(place)
      if (!item || item.status === 'REVOKED') return
      const status: CertificateStatus = 'REVOKED'
      if (await change(place, item, { status }, { events: [told] })) return
    }
  }

  const see = (version: unknown): void => {
    counter = Math.max(counter, Number(version ?? 0))
  }

  async function peek(place: Place): Promise<Item | undefined> {
    const item = await tables.get(place)
    see(item?.[`${place.prefix}version`])
    return item
  }

  async function settle(place: Place, item: Item): Promise<boolean> {
    const version = item[`${place.prefix}version`]
    see(version)
    for (const [name, value] of Object.entries(item))
      if (name.startsWith(`${place.prefix}outbox_`))
        if (!(await deliver(place, name, value as Consequences, version))) return false
    return true
  }

  async function load(place: Place): Promise<Item | undefined> {
    const item = await tables.get(place)
    return item && (await settle(place, item)) ? item : undefined
  }

  /** The outbox's name and the attributes that a change sets besides its own. */
  function stamp(place: Place, consequences: Consequences) {
    counter += 1
    const outbox = `${place.prefix}outbox_${randomBytes(8).toString('hex')}`
    return { outbox, set: { [`${place.prefix}version`]: counter, [outbox]: consequences } }
  }

  async function make(place: Place, item: Item, consequences: Consequences) {
    const { outbox, set } = stamp(place, consequences)
    const isNew =
      (await tables.putNew(place, { ...item, ...set })) || (await wasOurs(place, outbox))
    if (!isNew) return 'taken'
    const version = set[`${place.prefix}version`]
    return (await deliver(place, outbox, consequences, version)) ? 'made' : 'withdrawn'
  }

  async function change(
    place: Place,
    seen: Item,
    changed: Item,
    consequences: Consequences,
  ): Promise<Item | undefined> {
    const name = `${place.prefix}version`
    const { outbox, set } = stamp(place, consequences)
    const after =
      (await tables.update(place, { ...changed, ...set }, { [name]: seen[name] })) ??
      (await wasOurs(place, outbox))
    if (after) await deliver(place, outbox, consequences, after[name])
    return after
  }

  /** The item, if it carries this outbox: the SDK asked twice, and the first answer got lost. */
  async function wasOurs(place: Place, outbox: string): Promise<Item | undefined> {
    const item = await tables.get(place)
    return item?.[outbox] === undefined ? undefined : item
  }

  return { nextId, event, note, settle, peek, load, make, change }
}
