/** `certvend-server device add SERIAL --count N`: a batch for the factory, each with its own token. */
import { isDeviceSerial, isThingName } from '@certvend/client/wire'
import { failure } from '../failure.ts'
import type { DeviceDescription, NewDevice, Registry } from '../registry/registry.ts'
import { print, say, type Terminal } from '../terminal.ts'
import { generateToken, hashToken } from '../tokens.ts'

/** Devices that are added, and whose tokens are printed, together. */
const batchSize = 100

/**
 * The serials from `first` on: the digits at its end count up, in the same width.
 *
 * @throws Failure if there are none, or too few of them
 */
export function countSerials(first: string, count: number): string[] {
  const [, head = '', digits = ''] = /^(.*?)(\d+)$/.exec(first) ?? []
  const last = BigInt(digits || '0') + BigInt(count) - 1n
  if (digits === '' || String(last).length > digits.length)
    throw failure(
      2,
      `${first} cannot be counted up ${count} times`,
      'end it in enough digits, such as SN-00001',
    )
  const serials = Array.from(
    { length: count },
    (_, index) => `${head}${String(BigInt(digits) + BigInt(index)).padStart(digits.length, '0')}`,
  )
  if (!serials.every((serial) => isDeviceSerial(serial) && isThingName(serial)))
    throw failure(2, `${first} cannot be a thing name, which has no dots`, 'use - for .')
  return serials
}

/**
 * Adds devices, and prints serial and token of each, once: CSV, or one JSON document per line. What is
 * printed is in the registry; what is there already is left as it is, and told at the end.
 *
 * @throws Failure if some were there already
 */
export async function addBatch(
  registry: Registry,
  first: string,
  count: number,
  common: Omit<DeviceDescription, 'deviceSerial' | 'thingName'>,
  json: boolean,
  terminal: Terminal,
): Promise<void> {
  const serials = countSerials(first, count)
  let [added, taken] = [0, 0]
  if (!json) terminal.out('serial,token\n')
  for (let start = 0; start < count && !terminal.signal.aborted; start += batchSize) {
    const batch = serials.slice(start, start + batchSize).map(async (deviceSerial) => {
      const token = generateToken()
      const stored = await hashToken(token, 'generated')
      const device: NewDevice = { ...common, deviceSerial, thingName: deviceSerial, token: stored }
      return { device, token }
    })
    const made = await Promise.all(batch)
    const outcomes = await registry.addAll(
      made.map(({ device }) => device),
      terminal.clock.now(),
    )
    for (const [index, { device, token }] of made.entries()) {
      const { deviceSerial } = device
      if (outcomes[index] !== 'added') {
        taken += 1
        say(terminal, `${deviceSerial}: ${outcomes[index]?.replaceAll('-', ' ')}`)
        continue
      }
      added += 1
      if (json) print(terminal, { deviceSerial, thingName: deviceSerial, token })
      else terminal.out(`${deviceSerial},${token}\n`)
    }
    if ((start / batchSize) % 50 === 49) say(terminal, `${added} of ${count} added`)
  }
  say(terminal, `added ${added} of ${count}; their tokens are shown only now`)
  if (terminal.signal.aborted) throw failure(1, 'stopped before the end', 'count on from there')
  if (taken > 0)
    throw failure(3, `${taken} were there already, or their names`, 'they were left as they are')
}
