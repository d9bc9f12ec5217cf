/** Devices in DynamoDB: what the operator does to them. */
import type { StoredToken } from '../../tokens.ts'
import {
  type AddOutcome,
  type Device,
  type NewDevice,
  type Registry,
  registryBusy,
} from '../registry.ts'
import type { Consequences } from './changes.ts'
import type { Ledger } from './ledger.ts'
import { column, ledgerKeys, thingNameOf, toDevice } from './rows.ts'
import type { Item } from './tables.ts'

type Devices = Pick<
  Registry,
  'add' | 'addAll' | 'find' | 'list' | 'setDisabled' | 'rearm' | 'remove'
>

const outcomes = { made: 'added', taken: 'serial-taken', withdrawn: 'thing-name-taken' } as const

/** How many devices {@link Registry.addAll} has under way at a time. */
const lanes = 16

/** Rounds before a write that others keep getting in the way of gives up, as busy. */
const rounds = 12

export function createDevices(ledger: Ledger): Devices {
  const { tables, changes, shape, options } = ledger

  /** Judges and writes again until nobody was in between. */
  async function change(
    deviceSerial: string,
    plan: (row: Item) => Promise<{ set: Item; consequences: Consequences }>,
  ): Promise<Item | undefined> {
    for (let count = 0; count < rounds; count += 1) {
      const row = await ledger.row(deviceSerial)
      if (!row) return undefined
      const { set, consequences } = await plan(row)
      const after = await changes.change(ledger.device(deviceSerial), row, set, consequences)
      if (after) return after
    }
    throw registryBusy(new Error('others keep changing this device'))
  }

  /**
   * Takes the thing's name for the serial, also from a serial whose device is not there (any more, or
   * yet: it then finds out when it makes sure of the name).
   */
  async function takeThingName(thingName: string, deviceSerial: string): Promise<boolean> {
    const adopted = thingName === deviceSerial ? undefined : await ledger.row(thingName)
    if (adopted && thingNameOf(adopted, shape) === thingName) return false
    const ref = { table: options.ledger, key: ledgerKeys.thing(thingName) }
    const held = await tables.get(ref)
    const holder = held && String(held.deviceSerial)
    if (holder !== undefined && holder !== deviceSerial) {
      const row = await ledger.row(holder)
      if (row && thingNameOf(row, shape) === thingName) return false
    }
    const condition = { deviceSerial: holder ?? deviceSerial, settled: held?.settled }
    const taken = await tables.update(ref, { deviceSerial, settled: undefined }, condition, {
      orAbsent: true,
    })
    return taken !== undefined
  }

  /** One more than the events that the serial has had, so that no claim of before has this number. */
  async function nextClaimNumber(deviceSerial: string): Promise<number> {
    let number = 1
    const range = { prefix: 'event#' }
    for await (const _ of tables.query(options.ledger, { pk: `device#${deviceSerial}` }, range))
      number += 1
    return number
  }

  async function insert(added: NewDevice, at: Date): Promise<AddOutcome> {
    const { deviceSerial, thingName, token, spentOn } = added
    const old = await ledger.anyRow(deviceSerial)
    if (old?.[column('removed')] === true) await bury(deviceSerial)
    else if (old) return 'serial-taken'
    if (!(await takeThingName(thingName, deviceSerial))) return 'thing-name-taken'
    if (token?.kind === 'scrypt') await ledger.noteWeakToken()
    const event = changes.event(
      { name: 'device-added', deviceSerial, ...(spentOn !== undefined && { note: 'spent' }) },
      at,
    )
    const item: Item = {
      ...(shape.enabled
        ? { [shape.enabled]: added.disabled ? 0 : 1 }
        : { [column('disabled')]: added.disabled ? true : undefined }),
      [column('thingName')]: thingName,
      [column('policyName')]: added.policyName,
      [column('thingType')]: added.thingType,
      [column('attributes')]: added.attributes,
      [column('fleet')]: added.fleet,
      ...tokenColumns(token),
      [column('claimNumber')]: await nextClaimNumber(deviceSerial),
      [column('claimCertificateId')]: spentOn,
      [column('createdAt')]: at.getTime(),
      [column('changedAt')]: at.getTime(),
    }
    const consequences = { thingName, events: [event] }
    const outcome = await changes.make(ledger.device(deviceSerial), item, consequences)
    return outcomes[outcome]
  }

  /** Of devices with the same serial or thing name the first comes first; the rest go side by side. */
  async function insertAll(devices: readonly NewDevice[], at: Date): Promise<AddOutcome[]> {
    const became: AddOutcome[] = []
    const names = new Set<string>()
    const firsts: number[] = []
    const rest: number[] = []
    for (const [index, { deviceSerial, thingName }] of devices.entries()) {
      const own = [`serial ${deviceSerial}`, `thing ${thingName}`]
      ;(own.some((name) => names.has(name)) ? rest : firsts).push(index)
      for (const name of own) names.add(name)
    }
    const insertAt = async (index: number) => {
      became[index] = await insert(devices[index]!, at)
    }
    const queue = firsts.values()
    const lane = async () => {
      for (const index of queue) await insertAt(index)
    }
    await Promise.all(Array.from({ length: lanes }, lane))
    for (const index of rest) await insertAt(index)
    return became
  }

  const tokenColumns = (token: StoredToken | undefined): Item => ({
    [column('tokenKind')]: token?.kind,
    [column('tokenHash')]: token?.hash,
  })

  /** The end of every certificate that is not REVOKED, to go with a change. */
  async function revocation(deviceSerial: string, at: Date) {
    const items = await ledger.items(deviceSerial)
    return items
      .filter((item) => item.status !== 'REVOKED')
      .map((item) => ({
        sk: String(item.sk),
        event: changes.event(
          {
            name: 'certificate-status',
            deviceSerial,
            certificateId: String(item.certificateId),
            note: 'REVOKED',
          },
          at,
        ),
      }))
  }

  /** Ends what `remove` began: the name is free, and the row is gone. */
  async function bury(deviceSerial: string): Promise<void> {
    const row = await ledger.anyRow(deviceSerial)
    if (row?.[column('removed')] !== true) return
    const key = ledgerKeys.thing(thingNameOf(row, shape))
    await tables.remove({ table: options.ledger, key }, { deviceSerial })
    await tables.remove(ledger.device(deviceSerial), { [column('removed')]: true })
  }

  return {
    add: (description, token, at) => insert({ ...description, ...(token && { token }) }, at),
    addAll: insertAll,

    find: async (deviceSerial) => {
      const row = await ledger.row(deviceSerial)
      return row && toDevice(row, shape)
    },

    list: async ({ after, limit }) => {
      const found: Device[] = []
      const key = after === undefined || after === '' ? undefined : { [shape.serial]: after }
      for await (const row of tables.scan(options.table, key, limit)) {
        if (row[column('removed')] !== true) found.push(toDevice(row, shape))
        if (found.length === limit) break
      }
      return found
    },

    setDisabled: async (deviceSerial, disabled, at) => {
      const name = disabled ? 'device-disabled' : 'device-enabled'
      const after = await change(deviceSerial, async () => ({
        set: {
          ...(shape.enabled
            ? { [shape.enabled]: disabled ? 0 : 1 }
            : { [column('disabled')]: disabled ? true : undefined }),
          [column('changedAt')]: at.getTime(),
        },
        consequences: { events: [changes.event({ name, deviceSerial }, at)] },
      }))
      return after !== undefined
    },

    rearm: async (deviceSerial, { token, openUntil, revoke }, at) => {
      if (token !== 'keep' && token.kind === 'scrypt') await ledger.noteWeakToken()
      const after = await change(deviceSerial, async (row) => {
        const note = `${token === 'keep' ? 'token kept' : 'new token'}${revoke ? ', certificates revoked' : ''}`
        const event = changes.event({ name: 'device-rearmed', deviceSerial, note }, at)
        return {
          set: {
            ...(token !== 'keep' && { ...tokenColumns(token), [shape.token]: undefined }),
            [column('claimNumber')]: Number(row[column('claimNumber')] ?? 1) + 1,
            [column('claimOpenUntil')]: openUntil.getTime(),
            [column('claimPublicKey')]: undefined,
            [column('claimCertificateSerial')]: undefined,
            [column('claimReservedAt')]: undefined,
            [column('claimCertificateId')]: undefined,
            [column('claimAgain')]: undefined,
            [column('claimCertificates')]: undefined,
            [column('claimFirstAt')]: undefined,
            [column('changedAt')]: at.getTime(),
            ...(shape.registered && { [shape.registered]: 0 }),
          },
          consequences: {
            events: [event],
            ...(revoke && { revoked: await revocation(deviceSerial, at) }),
          },
        }
      })
      return after !== undefined
    },

    remove: async (deviceSerial, at) => {
      const after = await change(deviceSerial, async () => {
        const revoked = await revocation(deviceSerial, at)
        const event = changes.event({ name: 'device-removed', deviceSerial }, at)
        return { set: { [column('removed')]: true }, consequences: { revoked, events: [event] } }
      })
      if (after) await bury(deviceSerial)
      return after !== undefined
    },
  }
}
