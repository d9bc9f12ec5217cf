/** How each fault is put in; the list of them, and what must be found, is in `faults.ts`. */
import type { FaultName } from './faults.ts'
import type { Injection } from './injection.ts'
import { machineInjections } from './machine-injections.ts'
import { networkInjections } from './networks.ts'
import { serverInjections } from './server-injections.ts'

export const injections: Readonly<Record<FaultName, Injection>> = {
  ...machineInjections,
  ...networkInjections,
  ...serverInjections,
}
