/** Honest successes of each dialect, once made, for tests that bend, cut or mistake them. */
import { sendTo } from '../vending-machine.ts'
import { machines, type OldDialect } from './machines.ts'
import { deviceCa, enter } from './reference.ts'
import { fieldRequests } from './suite.ts'
import { makeWorld, type World, type WorldOptions } from './world.ts'

export interface Answer {
  /** As it went over the wire. */
  readonly text: string
  /** The same, parsed: to bend. */
  // biome-ignore lint/suspicious/noExplicitAny: five shapes, bent at will
  readonly body: any
  readonly world: World
}

/** What a device with this serial is answered. */
export async function successOf(
  dialect: OldDialect,
  deviceSerial: string,
  options: Partial<WorldOptions> = { keys: 'EC' },
): Promise<Answer> {
  const world = makeWorld({ deviceCa, ...options })
  const { token } = enter(world, dialect, deviceSerial)
  const { path, ...rest } = fieldRequests[dialect](deviceSerial, token)
  const reply = await sendTo(machines[dialect](world))(
    { ...rest, url: new URL(`https://vending.example${path}`), headers: rest.headers ?? {} },
    { deadlineMs: 1000, replyBytes: 100_000 },
  )
  const text = Buffer.from(reply.body).toString()
  return { text, body: JSON.parse(text), world }
}

/** Where each dialect has its certificate and its key. */
export const parts: Readonly<
  Record<OldDialect, { certificate: readonly string[]; key: readonly string[] }>
> = {
  'awslabs-2018': { certificate: ['certificatePem'], key: ['keyPair', 'PrivateKey'] },
  'awslabs-2020': { certificate: ['certificatePem'], key: ['keyPair', 'PrivateKey'] },
  'iot-atlas': {
    certificate: ['payload', 'certificates', 'device_certificate'],
    key: ['payload', 'keyPair', 'privateKey'],
  },
  'gateway-2021': {
    certificate: ['certificateData', 'pem'],
    key: ['certificateData', 'key_pair', 'private_key'],
  },
  'express-2017': {
    certificate: ['certdata', 'certificatePem'],
    key: ['certdata', 'keyPair', 'PrivateKey'],
  },
}

/** A copy of `body` in which what `where` leads to is what `change` makes of it. */
export function bent(
  body: unknown,
  where: readonly string[],
  change: (value: string) => unknown,
): unknown {
  const copy = structuredClone(body) as Record<string, unknown>
  let holder = copy
  for (const name of where.slice(0, -1)) holder = holder[name] as Record<string, unknown>
  const last = where.at(-1)!
  holder[last] = change(String(holder[last]))
  return copy
}
