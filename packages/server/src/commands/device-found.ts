/** A device that must be there. */
import { type Failure, failure } from '../failure.ts'
import type { Device, Registry } from '../registry/registry.ts'

/** @throws Failure if there is none */
export async function find(registry: Registry, serial: string): Promise<Device> {
  const device = await registry.find(serial)
  if (!device) throw noSuchDevice(serial)
  return device
}

export const noSuchDevice = (serial: string): Failure =>
  failure(3, `there is no device ${serial}`, 'see all of them: certvend-server device list')
