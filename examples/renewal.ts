/** For firmware that keeps its identity for years: a successor in time, proven before it is used. */
import {
  type CredentialStore,
  connect,
  reenroll,
  renewalDue,
  type VendingServer,
} from '@certvend/client'

/**
 * To be called now and then, and never more often than you would ask a server that refuses. A session of
 * this device that is open meanwhile is ended by the successor's.
 *
 * Resolves whether the store holds another credential than before. What fails leaves the one in use in use.
 */
export async function renewIfDue(
  store: CredentialStore,
  vendingServer: VendingServer,
  now: Date = new Date(),
): Promise<boolean> {
  const inUse = store.current()
  if (!inUse || now < renewalDue(inUse)) return false
  const waiting = store.pending() // one that a power cut has kept from its proof
  const successor =
    waiting?.state === 'issued' ? waiting.credential : await reenroll(store, vendingServer)
  const session = await connect(successor)
  store.promote()
  await session.close()
  return true
}
