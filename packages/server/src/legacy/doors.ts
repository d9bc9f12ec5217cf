/**
 * The old URLs on one machine: all of them at the vending machine's own door, but the one protocol
 * that knows no TLS, which gets a door of its own.
 */
import type { Handler } from '../handler.ts'
import { type Listener, listen } from '../listen.ts'
import type { LegacyCounts } from './counts.ts'
import type { LegacyName } from './dialect.ts'
import { createLegacyFront, type LegacyFront, type LegacyOptions, withLegacy } from './front.ts'

export interface PlainDoor {
  /** `127.0.0.1` by default. */
  readonly address?: string
  /** 0 takes a free one. */
  readonly port: number
}

export interface LegacyDoors {
  /** The old URLs that belong behind TLS, and after them the vending machine's own. */
  readonly handler: Handler
  /** Opens the door without TLS, if there is a dialect for it. Rejects with the socket's error. */
  openPlain(door: PlainDoor): Promise<Listener | undefined>
  counts(): ReadonlyMap<LegacyName, LegacyCounts>
}

/**
 * @param around put around both doors, as the lab does to see what comes through them
 * @throws RangeError if two routes want the same URLs
 */
export function createLegacyDoors(
  options: LegacyOptions,
  handler: Handler,
  around: (handler: Handler) => Handler = (inner) => inner,
): LegacyDoors {
  const isPlain = ({ name }: { readonly name: LegacyName }) => name === 'express-2017'
  const front = (plain: boolean): LegacyFront | undefined => {
    const routes = options.routes.filter((route) => isPlain(route) === plain)
    return routes.length > 0 ? createLegacyFront({ ...options, routes }) : undefined
  }
  const [secure, plain] = [front(false), front(true)]
  return {
    handler: around(secure ? withLegacy(secure, handler) : handler),
    openPlain: async ({ address = '127.0.0.1', port }) =>
      plain && listen(around(withLegacy(plain, nothingElse)), { tls: 'none', address, port }),
    counts: () => new Map([...(secure?.counts() ?? []), ...(plain?.counts() ?? [])]),
  }
}

const nothingElse: Handler = async () =>
  new Response(null, { status: 404, headers: { 'cache-control': 'no-store' } })
