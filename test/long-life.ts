/**
 * A gateway's years in seconds: the real agent and store, the real vending machine, registry and CA, and a
 * clock that every wait moves. Only the wires are missing: requests are handed over, and a session
 * opens where the registry says that the certificate is in force.
 */
import fs from 'node:fs'
import path from 'node:path'
import { type AgentOptions, type LogEvent, runAgent } from '@certvend/agent'
import {
  CertvendError,
  type Clock,
  type Credential,
  type CredentialStore,
  createClaim,
  createVendingServer,
  enroll,
  openCredentialStore,
  renewalDue,
  type Send,
  type SendResponse,
  type Session,
  type SessionEnd,
  type Transport,
  type VendingServer,
} from '@certvend/client'
import {
  createHandler,
  createLocalIssuer,
  generateToken,
  hashToken,
  isInForce,
  openDeviceCa,
  openLibsqlRegistry,
  type Registry,
  silent,
} from '@certvend/server'
import { expect, onTestFinished } from 'vitest'
import { certify } from './pki.ts'
import { contents, temporaryDirectory } from './temporary.ts'

export const minute = 60_000
export const hour = 60 * minute
export const day = 24 * hour
/** Of the certificates of {@link aboutToRenew}. */
export const lifeMs = 90 * day

const deviceSerial = 'gw-1'
/** The machine is suspended whenever it can be: a wait of minutes lasts an hour. Saves years of turns. */
const sleepsMs = hour
const anchor = await certify('MQTT CA', { ca: true })
const pin = await certify('Vending CA', { ca: true })

/** Thrown where the power goes: no line of the agent's catches it. */
export const powerCut: Error = new RangeError('the power went')

export interface World {
  readonly clock: Clock & { set(now: Date): void }
  readonly server: VendingServer
  readonly registry: Registry
  readonly directory: string
  /** Certificates of the device, oldest first. */
  statuses(): Promise<string[]>
  /** Most that were ever in force at once. */
  readonly mostActive: number
  /** When `/v1/reenroll` was asked, whatever came of it. */
  readonly asked: readonly Date[]
  /** Stands between agent and vending machine. */
  intercept: (answer: () => Promise<SendResponse>) => Promise<SendResponse>
  /** Whether the broker opens sessions for a certificate in force. */
  admits: (certificateId: string) => boolean
  open(): Promise<CredentialStore>
  inUse(): Promise<Credential>
  /** Runs the agent for `forMs` of the clock, or until the power goes. */
  live(forMs: number, more?: LiveOptions): Promise<Life>
}

export interface LiveOptions extends Partial<AgentOptions> {
  /** The power goes when, by what was logged, this is so. */
  readonly until?: (events: readonly LogEvent[]) => boolean
  /** Told at each turn. */
  readonly look?: (store: CredentialStore, events: readonly LogEvent[]) => void
}

export interface Life {
  readonly events: readonly LogEvent[]
  count(name: LogEvent['event']): number
  readonly turns: number
  /** Whether the power went. */
  readonly isCut: boolean
}

/** A gateway that was just enrolled. @param validityMs how long its certificates last */
export async function longLife(validityMs: number, start = new Date()): Promise<World> {
  let now = start.getTime()
  let end = Number.POSITIVE_INFINITY
  let stop = new AbortController()
  const clock: World['clock'] = {
    now: () => new Date(now),
    set(to) {
      end += to.getTime() - now
      now = to.getTime()
    },
    async wait(ms, signal) {
      signal?.throwIfAborted()
      now += ms < 5 * minute ? ms : Math.max(ms, sleepsMs)
      if (now >= end) stop.abort(new Error('enough'))
      await new Promise(setImmediate)
      signal?.throwIfAborted()
    },
  }
  const registry = openLibsqlRegistry(':memory:')
  onTestFinished(() => registry.close())
  const issuer = createLocalIssuer(await openDeviceCa(temporaryDirectory(), clock), { validityMs })
  const endpoint = { host: 'mqtt.example', port: 8883, trustAnchors: [anchor.certificate] }
  const handler = createHandler({ registry, issuer, clock, log: silent, endpoint })
  const server = createVendingServer({ url: 'https://vending.example', pins: pin.certificate })
  const directory = path.join(temporaryDirectory(), 'state')
  const token = generateToken()
  await registry.add(
    { deviceSerial, thingName: deviceSerial },
    await hashToken(token, 'generated'),
    clock.now(),
  )
  const asked: Date[] = []
  let mostActive = 0
  const count = async (): Promise<void> => {
    const all = await registry.certificates(deviceSerial)
    mostActive = Math.max(mostActive, all.filter((one) => isInForce(one, clock.now())).length)
  }

  const world: World = {
    clock,
    server,
    registry,
    directory,
    statuses: async () =>
      (await registry.certificates(deviceSerial)).map(({ status }) => status).reverse(),
    get mostActive() {
      return mostActive
    },
    asked,
    intercept: (answer) => answer(),
    admits: () => true,
    open: () => openCredentialStore(directory),
    inUse: async () => (await world.open()).current()!,
    live,
  }

  const sendAs =
    (shown: () => string | undefined): Send =>
    async ({ method, url, headers, body = null }, { signal }) => {
      const isRenewal = url.pathname.endsWith('/reenroll')
      if (isRenewal) asked.push(clock.now())
      const shownCertificateId = isRenewal ? shown() : undefined
      const answer = async (): Promise<SendResponse> => {
        const response = await handler(new Request(url, { method, headers, body }), {
          remoteAddress: '192.0.2.1',
          ...(shownCertificateId === undefined ? {} : { shownCertificateId }),
        })
        await count()
        return {
          status: response.status,
          headers: Object.fromEntries(response.headers),
          body: new Uint8Array(await response.arrayBuffer()),
        }
      }
      signal?.throwIfAborted()
      return isRenewal ? world.intercept(answer) : answer()
    }

  const transport: Transport = async ({ certificateId, thingName, notAfter }, { signal }) => {
    signal?.throwIfAborted()
    if (notAfter < clock.now()) throw new CertvendError('ERR_CREDENTIAL_EXPIRED', 'it has expired')
    const certificate = await registry.findCertificate(certificateId)
    if (!certificate || !isInForce(certificate, clock.now()) || !world.admits(certificateId))
      throw new CertvendError('ERR_SESSION_REFUSED', 'the broker shut the door')
    await registry.confirm(certificateId, clock.now())
    await count()
    let settle = (_: SessionEnd): void => {}
    const ended = new Promise<SessionEnd>((resolve) => {
      settle = resolve
    })
    const close = async (): Promise<void> => settle({ reason: 'closed' })
    signal?.addEventListener('abort', () => void close())
    const session: Partial<Session> = { thingName, ended, close, publish: async () => {} }
    return session as Session
  }

  async function live(forMs: number, { until, look, ...more }: LiveOptions = {}): Promise<Life> {
    const store = await world.open()
    const events: LogEvent[] = []
    let turns = 0
    let isCut = false
    stop = new AbortController()
    end = now + forMs
    await runAgent({
      store,
      enrollment: () => {
        throw powerCut // nobody has a token any more
      },
      vendingServer: () => server,
      signal: stop.signal,
      clock,
      random: () => 0.5,
      log(event) {
        events.push(event)
        if (until?.(events)) throw powerCut
      },
      onTurn() {
        turns += 1
        look?.(store, events)
      },
      send: sendAs(() => store.current()?.certificateId),
      transport,
      ...more,
    }).catch((error: unknown) => {
      if (error !== powerCut) throw error
      isCut = true
    })
    return {
      events,
      turns,
      isCut,
      count: (name) => events.filter(({ event }) => event === name).length,
    }
  }

  const store = await world.open()
  const send = sendAs(() => undefined)
  await enroll(store, server, createClaim({ deviceSerial, token }), { send, clock })
  store.close()
  return world
}

/**
 * Names and times of change of all that is in a state directory: nothing was written if they are the same.
 * Each start writes to its lock.
 */
export const touched = (directory: string): string =>
  ['.', ...contents(directory)]
    .filter((name) => name !== 'lock')
    .map((name) => {
      const { mtimeNs, ctimeNs } = fs.lstatSync(path.join(directory, name), { bigint: true })
      return `${name} ${mtimeNs} ${ctimeNs}`
    })
    .join('\n')

export const names = (events: readonly LogEvent[]): string[] => events.map(({ event }) => event)
export const about = (events: readonly LogEvent[], name: LogEvent['event']): LogEvent[] =>
  events.filter(({ event }) => event === name)

/** A gateway on the day before its renewal is due, which has asked nobody so far. */
export async function aboutToRenew(): Promise<{ world: World; credential: Credential }> {
  const world = await longLife(lifeMs)
  const credential = await world.inUse()
  const untilDueMs = renewalDue(credential).getTime() - world.clock.now().getTime()
  const { events } = await world.live(untilDueMs - day)
  expect(names(events).filter((name) => /^(renew|enroll)\./.test(name))).toEqual([])
  expect(world.asked).toEqual([])
  return { world, credential }
}

export const thrower =
  (code: 'ERR_NETWORK' | 'ERR_SERVER_UNTRUSTED' | 'ERR_REPLY_LOST') => (): never => {
    throw new CertvendError(code, 'it did not work')
  }
