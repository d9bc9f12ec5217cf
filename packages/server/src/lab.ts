/**
 * A whole world in one process: a throwaway PKI, the vending machine, and a broker that behaves like
 * AWS IoT Core at the door. For trying things out and for tests.
 *
 * Four trust domains, never mixed, so that a test which trusts the wrong one fails: the vending
 * server's root with the pinned intermediate and its sibling, the broker's CA, and the device CA.
 */
import type { Endpoint } from '@certvend/client/wire'
import { type Broker, openBroker } from './broker.ts'
import type { Validity } from './certificate.ts'
import { type Clock, day, hour, later, systemClock } from './clock.ts'
import type { FailureLimits } from './failures.ts'
import { createHandler, type Handler } from './handler.ts'
import { createLocalIssuer, makeDeviceCa } from './issuer/local.ts'
import type { LegacyCounts } from './legacy/counts.ts'
import type { LegacyName } from './legacy/dialect.ts'
import { createLegacyDoors } from './legacy/doors.ts'
import type { LegacyRoute } from './legacy/routes.ts'
import { type Listener, listen } from './listen.ts'
import { type Log, silent } from './log.ts'
import {
  type Authority,
  type CaRequest,
  makeCa,
  makeServer,
  type ServerIdentity,
  type ServerRequest,
} from './pki.ts'
import { openLibsqlRegistry } from './registry/libsql.ts'
import type { DeviceDescription, Registry } from './registry/registry.ts'
import { identityOptions } from './tls.ts'
import { generateToken, hashToken } from './tokens.ts'

export interface LabOptions {
  /** 0, the default, takes free ones. */
  readonly ports?: {
    readonly vending?: number
    readonly mqtt?: number
    /** Of the door without TLS; see `legacy`. */
    readonly plain?: number
  }
  /** Address to listen on; `127.0.0.1` by default. */
  readonly address?: string
  /** What devices know both servers as, in their certificates too; `localhost` by default. */
  readonly host?: string
  /** Policy time of the vending machine and the broker; TLS itself uses the system's. */
  readonly clock?: Clock
  readonly log?: Log
  /** The registry's file; in memory by default. */
  readonly registryPath?: string
  /** How long device certificates last, in milliseconds; 365 days by default. */
  readonly certificateValidityMs?: number
  readonly failures?: FailureLimits
  /** Old vending machines to stand in for besides; none by default. */
  readonly legacy?: readonly LegacyRoute[]
  /** Stands between the front door and the vending machine, to misbehave on purpose. */
  readonly intercept?: (request: Request, answer: () => Promise<Response>) => Promise<Response>
}

/** A request that reached the vending machine. */
export interface VendingRequest {
  readonly method: string
  readonly path: string
  readonly status: number
}

/** Certificates are valid from an hour ago for a year, unless said otherwise. */
type Loose<T extends Validity> = Omit<T, keyof Validity> & Partial<Validity>

/** Whom it trusts, and what tests need to be refused. */
export interface LabPki {
  readonly root: Authority
  /** What devices pin. */
  readonly intermediate: Authority
  /** Issued by the same root, and pinned by nobody. */
  readonly sibling: Authority
  /** Vouches for the broker: the endpoint's trust anchor. */
  readonly brokerCa: Authority
  /** Issues device certificates; self-signed. */
  readonly deviceCa: Authority
  /** Makes a further CA; a self-signed one without `issuer`. */
  issueCa(request: Loose<CaRequest>): Promise<Authority>
  /** Makes a further TLS server, for `localhost` and `127.0.0.1` unless `names` says otherwise. */
  issueServer(
    request: Omit<Loose<ServerRequest>, 'names'> & { names?: readonly string[] },
  ): Promise<ServerIdentity>
}

export interface LabDevice {
  readonly deviceSerial: string
  readonly token: string
}

/** A vending machine, a broker and their PKI in this process, on loopback. */
export interface Lab {
  /** `https://<host>:<port>`. */
  readonly vendingUrl: string
  /** `http://127.0.0.1:<port>`, if `legacy` names the dialect that knows no TLS. */
  readonly plainUrl?: string
  /** Requests in old dialects so far. */
  legacyCounts(): ReadonlyMap<LegacyName, LegacyCounts>
  /** The intermediate to pin, PEM. */
  readonly pins: string
  readonly pki: LabPki
  readonly mqtt: Broker & { readonly host: string; readonly trustAnchors: readonly string[] }
  readonly registry: Registry
  /** Every request that reached the vending machine, oldest first. */
  readonly requests: readonly VendingRequest[]
  /** Adds a device; `lab-1`, `lab-2`, … without a serial. */
  addDevice(
    deviceSerial?: string,
    options?: Partial<Omit<DeviceDescription, 'deviceSerial'>> & { readonly token?: string },
  ): Promise<LabDevice>
  /** Opens a second front door to the same vending machine, under the sibling intermediate. */
  serveUnderSibling(): Promise<FrontDoor>
  /** Opens a further front door with an identity of the test's own making. */
  serveWith(identity: ServerIdentity): Promise<FrontDoor>
  /** Closes every front door, the broker and the registry. Repeating it does nothing. */
  close(): Promise<void>
}

export interface FrontDoor {
  /** `https://<host>:<port>`. */
  readonly vendingUrl: string
  close(): Promise<void>
}

/** Starts a lab. Rejects with the socket's error, such as `EADDRINUSE`. */
export async function startLab(options: LabOptions = {}): Promise<Lab> {
  const { clock = systemClock, address = '127.0.0.1', host = 'localhost' } = options
  const { ports = {}, log = silent } = options
  const names = [...new Set([host, 'localhost', '127.0.0.1'])]
  const pki = await makeLabPki()
  const registry = openLibsqlRegistry(options.registryPath ?? ':memory:')
  const broker = await openBroker({
    registry,
    clock,
    address,
    port: ports.mqtt ?? 0,
    deviceCa: [pki.deviceCa.certificate],
    tls: identityOptions(await pki.issueServer({ issuer: pki.brokerCa, sends: [], names })),
  }).catch(async (error: unknown) => {
    await registry.close()
    throw error
  })
  const trustAnchors = [pki.brokerCa.certificate]
  const endpoint: Endpoint = { host, port: broker.port, trustAnchors }
  const { certificateValidityMs: validityMs, failures } = options
  const machineOptions = {
    registry,
    issuer: createLocalIssuer(pki.deviceCa, { ...(validityMs && { validityMs }) }),
    clock,
    log,
    endpoint,
    ...(failures && { failures }),
  }

  const requests: VendingRequest[] = []
  const watched =
    (machine: Handler): Handler =>
    async (request, context) => {
      const answer = () => machine(request, context)
      const response = await (options.intercept?.(request, answer) ?? answer())
      const { method, url } = request
      requests.push({ method, path: new URL(url).pathname, status: response.status })
      return response
    }
  const legacy = createLegacyDoors(
    { ...machineOptions, routes: options.legacy ?? [] },
    createHandler(machineOptions),
    watched,
  )
  const doors = new Set<FrontDoor>()
  const open = async (identity: ServerIdentity, port = 0): Promise<FrontDoor> => {
    const listener = await listen(legacy.handler, { tls: identityOptions(identity), address, port })
    const door: FrontDoor = {
      vendingUrl: `https://${host}:${listener.port}`,
      async close() {
        if (doors.delete(door)) await listener.close(0)
      },
    }
    doors.add(door)
    return door
  }
  let plain: Listener | undefined
  const close = async () => {
    await Promise.all([...[...doors].map((door) => door.close()), plain?.close(0)])
    await broker.close()
    await registry.close()
  }

  let main: FrontDoor
  try {
    plain = await legacy.openPlain({ port: ports.plain ?? 0 })
    main = await open(await pki.issueServer({ issuer: pki.intermediate, names }), ports.vending)
  } catch (error) {
    await close()
    throw error
  }
  let added = 0
  let closing: Promise<void> | undefined
  return {
    vendingUrl: main.vendingUrl,
    ...(plain && { plainUrl: `http://127.0.0.1:${plain.port}` }),
    legacyCounts: legacy.counts,
    pins: pki.intermediate.certificate,
    pki,
    mqtt: Object.assign(broker, { host, trustAnchors }),
    registry,
    requests,
    async addDevice(serial, { token: given, ...description } = {}) {
      added += 1
      const deviceSerial = serial ?? `lab-${added}`
      const token = given ?? generateToken()
      const stored = await hashToken(token, given === undefined ? 'generated' : 'imported')
      const device = { thingName: deviceSerial.replaceAll('.', '_'), ...description, deviceSerial }
      const outcome = await registry.add(device, stored, clock.now())
      if (outcome !== 'added') throw new RangeError(`${deviceSerial}: ${outcome}`)
      return { deviceSerial, token }
    },
    serveUnderSibling: async () => open(await pki.issueServer({ issuer: pki.sibling, names })),
    serveWith: (identity) => open(identity),
    close: () => (closing ??= close()),
  }
}

/** Dated by the system's clock, which is the one that TLS reads. */
async function makeLabPki(): Promise<LabPki> {
  const notBefore = later(systemClock.now(), -hour)
  const year: Validity = { notBefore, notAfter: later(notBefore, 365 * day) }
  const issueCa: LabPki['issueCa'] = (request) => makeCa({ ...year, ...request })
  const root = await issueCa({ commonName: 'Lab root' })
  const below = (commonName: string) => issueCa({ commonName, issuer: root, pathLength: 0 })
  return {
    root,
    intermediate: await below('Lab intermediate'),
    sibling: await below('Lab sibling intermediate'),
    brokerCa: await issueCa({ commonName: 'Lab broker CA', pathLength: 0 }),
    deviceCa: await makeDeviceCa(systemClock),
    issueCa,
    issueServer: (request) =>
      makeServer({ ...year, names: ['localhost', '127.0.0.1'], ...request }),
  }
}

export type { Broker, DoorRefusal, ReceivedMessage } from './broker.ts'
export type { Authority, CaRequest, ServerIdentity, ServerRequest } from './pki.ts'
export { keyPurpose, makeKey } from './pki.ts'
export type { LegacyName, LegacyRoute }
