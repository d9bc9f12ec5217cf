/** A vending machine without sockets: real registry, real CA, a clock that tests move. */
import type { EnrollReply, Problem } from '@certvend/client/wire'
import { type Clock, later } from '../src/clock.ts'
import { createHandler, type Handler, type HandlerOptions } from '../src/handler.ts'
import type { Issuer } from '../src/issuer/issuer.ts'
import { createLocalIssuer, makeDeviceCa } from '../src/issuer/local.ts'
import type { LogEvent } from '../src/log.ts'
import { openLibsqlRegistry } from '../src/registry/libsql.ts'
import type { DeviceDescription, Registry } from '../src/registry/registry.ts'
import { generateToken, hashToken } from '../src/tokens.ts'
import { type DeviceKey, makeDeviceKey } from './device.ts'

export interface MovableClock extends Clock {
  move(durationMs: number): void
}

export function movableClock(start = new Date('2030-05-17T12:00:00Z')): MovableClock {
  let present = start
  return {
    now: () => present,
    move(durationMs) {
      present = later(present, durationMs)
    },
  }
}

/** What came back, read. */
export interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly text: string
  readonly reply: EnrollReply
  /** The problem's code, without its prefix. */
  readonly problem: string | undefined
}

export interface Device {
  readonly deviceSerial: string
  readonly token: string
  readonly key: DeviceKey
}

export interface Attempt {
  readonly token?: string | undefined
  readonly deviceSerial?: string
  readonly key?: DeviceKey
  readonly csr?: string
  readonly remoteAddress?: string
  /** Another handler, as if in another process. */
  readonly through?: Handler
}

export interface Machine {
  readonly registry: Registry
  readonly issuer: Issuer
  readonly clock: MovableClock
  readonly handler: Handler
  readonly events: readonly LogEvent[]
  /** Another handler over the same registry and CA: another process, as far as it can tell. */
  another(changes?: Partial<HandlerOptions>): Handler
  addDevice(deviceSerial?: string, changes?: AddChanges): Promise<Device>
  enroll(device: Device, changes?: Attempt): Promise<Answer>
  send(path: string, init?: RequestInit, through?: Handler): Promise<Answer>
  alarms(): Promise<readonly string[]>
}

type AddChanges = Partial<DeviceDescription> & { readonly token?: string | null }

export async function startMachine(changes: Partial<HandlerOptions> = {}): Promise<Machine> {
  const clock = movableClock()
  const registry = changes.registry ?? openLibsqlRegistry(':memory:')
  const issuer = changes.issuer ?? createLocalIssuer(await makeDeviceCa(clock))
  const events: LogEvent[] = []
  const another: Machine['another'] = (more = {}) =>
    createHandler({
      clock,
      log: (event) => events.push(event),
      endpoint: { host: 'mqtt.example', port: 8883, trustAnchors: ['-----BEGIN CERTIFICATE-----'] },
      ...changes,
      registry,
      issuer,
      ...more,
    })
  const handler = another()
  let added = 0

  const send: Machine['send'] = async (path, init = {}, through = handler) => {
    const request = new Request(`https://vending.example${path}`, init)
    return read(await through(request, { remoteAddress: '192.0.2.1' }))
  }
  return {
    registry,
    issuer,
    clock,
    handler,
    events,
    another,
    send,
    async addDevice(serial, { token: given, ...description } = {}) {
      added += 1
      const deviceSerial = serial ?? `SN-${added}`
      const token = given ?? generateToken()
      const stored =
        given === null
          ? undefined
          : await hashToken(token, given === undefined ? 'generated' : 'imported')
      const outcome = await registry.add(
        { thingName: deviceSerial, ...description, deviceSerial },
        stored,
        clock.now(),
      )
      if (outcome !== 'added') throw new Error(outcome)
      return { deviceSerial, token, key: await makeDeviceKey() }
    },
    async enroll(device, attempt = {}) {
      const deviceSerial = attempt.deviceSerial ?? device.deviceSerial
      const token = 'token' in attempt ? attempt.token : device.token
      const csr = attempt.csr ?? (await (attempt.key ?? device.key).csr(deviceSerial))
      const request = new Request('https://vending.example/v1/enroll', {
        method: 'POST',
        headers: {
          'content-type': 'application/json',
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
        },
        body: JSON.stringify({ deviceSerial, csr }),
      })
      const { through = handler, remoteAddress = '192.0.2.1' } = attempt
      return read(await through(request, { remoteAddress }))
    },
    async alarms() {
      const trail = await registry.events({ limit: 1000 })
      return trail.map((event) => event.name as string).filter((name) => name.endsWith('-conflict'))
    },
  }
}

async function read(response: Response): Promise<Answer> {
  const text = await response.text()
  const reply = JSON.parse(text || '{}')
  const { type } = reply as Problem
  return {
    status: response.status,
    headers: response.headers,
    text,
    reply,
    problem: type?.replace('urn:certvend:problem:', ''),
  }
}
