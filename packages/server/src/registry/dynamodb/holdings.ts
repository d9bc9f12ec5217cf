/** Certificates in DynamoDB: step 4 of the life of a claim, and what the operator says of them. */
import { type CertificateStatus, type Registry, registryBusy } from '../registry.ts'
import { certificatePlace } from './changes.ts'
import type { Ledger } from './ledger.ts'
import { type EventItem, toCertificate } from './rows.ts'
import type { Item } from './tables.ts'

type Holdings = Pick<
  Registry,
  'confirm' | 'findCertificate' | 'certificates' | 'setCertificateStatus'
>

/** Rounds before a write that others keep getting in the way of gives up, as busy. */
const rounds = 12

export function createHoldings(ledger: Ledger): Holdings {
  const { changes, options } = ledger

  const changeItem = (item: Item, set: Item, event: EventItem) =>
    changes.change(
      certificatePlace(options.ledger, String(item.deviceSerial), String(item.sk)),
      item,
      set,
      { events: [event] },
    )

  const statusEvent = (item: Item, status: CertificateStatus, at: Date): EventItem =>
    changes.event(
      {
        name: 'certificate-status',
        deviceSerial: String(item.deviceSerial),
        certificateId: String(item.certificateId),
        note: status,
      },
      at,
    )

  /** @returns false if somebody else changed it meanwhile */
  async function tryConfirm(certificateId: string, at: Date): Promise<boolean> {
    const item = (await ledger.findItem(certificateId))?.item
    if (item?.status !== 'ACTIVE' || item.confirmedAt !== undefined) return true
    const deviceSerial = String(item.deviceSerial)
    const confirmed = changes.event(
      { name: 'certificate-confirmed', deviceSerial, certificateId },
      at,
    )
    // The older ones first: what a crash leaves undone is then done when it connects again.
    for (const other of await ledger.items(deviceSerial)) {
      const isOlder = Number(other.issuedAt) <= Number(item.issuedAt) && other.sk !== item.sk
      if (!isOlder || other.status !== 'ACTIVE') continue
      const event = statusEvent(other, 'INACTIVE', at)
      if (!(await changeItem(other, { status: 'INACTIVE' }, event))) return false
    }
    return (await changeItem(item, { confirmedAt: at.getTime() }, confirmed)) !== undefined
  }

  return {
    confirm: async (certificateId, at) => {
      for (let count = 0; count < rounds; count += 1)
        if (await tryConfirm(certificateId, at)) return
      throw registryBusy(new Error('others keep changing this certificate'))
    },

    findCertificate: ledger.certificate,

    certificates: async (deviceSerial) => {
      await ledger.anyRow(deviceSerial) // it may still carry one
      return (await ledger.items(deviceSerial)).map(toCertificate)
    },

    setCertificateStatus: async (certificateId, status, at) => {
      for (let count = 0; count < rounds; count += 1) {
        const item = (await ledger.findItem(certificateId))?.item
        if (!item || (item.status === 'REVOKED' && status !== 'REVOKED')) return false
        if (await changeItem(item, { status }, statusEvent(item, status, at))) return true
      }
      throw registryBusy(new Error('others keep changing this certificate'))
    },
  }
}
