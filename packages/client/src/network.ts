/** Which addresses this device has: how a change of network is noticed. */
import { networkInterfaces } from 'node:os'

function addresses(): string[] | undefined {
  try {
    return Object.values(networkInterfaces()).flatMap((all) =>
      (all ?? []).map(({ address }) => address),
    )
  } catch {
    return undefined // a sandbox without AF_NETLINK cannot look
  }
}

/** Whether `address` is still one of this device's; true where that cannot be told. */
export function addressStillOurs(address: string | undefined): boolean {
  if (address === undefined) return true
  // An IPv4 address on a dual-stack socket is written as ::ffff:192.0.2.1.
  const plain = address.replace(/^::ffff:/, '')
  return addresses()?.includes(plain) ?? true
}

/** Changes when an address comes or goes; the same text where that cannot be told. */
export const networkFingerprint = (): string => (addresses() ?? []).sort().join(' ')
