/** By which addresses this machine can be reached from elsewhere, and so reach elsewhere. */
import { networkInterfaces } from 'node:os'

/** `eth0 192.0.2.7`, sorted, at most eight; without loopback and link-local. Nothing where a sandbox forbids to look. */
export function ownAddresses(): readonly string[] | undefined {
  try {
    return Object.entries(networkInterfaces())
      .flatMap(([name, all]) =>
        (all ?? [])
          .filter(({ internal, address }) => !internal && !/^(fe80:|169\.254\.)/i.test(address))
          .map(({ address }) => `${name} ${address}`),
      )
      .sort()
      .slice(0, 8)
  } catch {
    return undefined
  }
}
