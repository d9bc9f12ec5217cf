/** Which old vending machine stands at which URL. */
import { awslabs2018 } from './awslabs-2018.ts'
import { awslabs2020 } from './awslabs-2020.ts'
import type { LegacyDialect, LegacyName } from './dialect.ts'
import { express2017 } from './express-2017.ts'
import { gateway2021 } from './gateway-2021.ts'
import { iotAtlas } from './iot-atlas.ts'

export const legacyDialects: Readonly<Record<LegacyName, LegacyDialect>> = {
  'awslabs-2018': awslabs2018,
  'awslabs-2020': awslabs2020,
  'iot-atlas': iotAtlas,
  'gateway-2021': gateway2021,
  'express-2017': express2017,
}

export const legacyNames = Object.keys(legacyDialects) as readonly LegacyName[]

const isLegacyName = (name: string): name is LegacyName => Object.hasOwn(legacyDialects, name)

/** One old vending machine to stand in for. */
export interface LegacyRoute {
  readonly name: LegacyName
  /** Answers only below this path, such as `/LATEST`; by default whatever stands before its own. */
  readonly prefix?: string
}

/** Reads `NAME` or `NAME=/PREFIX`; undefined if it is neither. */
export function readRoute(text: string): LegacyRoute | undefined {
  const [, name = '', prefix] =
    /^([a-z0-9-]+)(?:=((?:\/[A-Za-z0-9._~-]{1,64}){0,4}))?$/.exec(text) ?? []
  return isLegacyName(name) ? { name, ...(prefix !== undefined && { prefix }) } : undefined
}

/** Whether `pathname` is `path`, below the route's prefix or below anything. */
export const isAt = (pathname: string, path: string, { prefix }: LegacyRoute): boolean =>
  pathname === `${prefix ?? ''}${path}` ||
  (prefix === undefined && path !== '/' && pathname.endsWith(path))

/**
 * Two of the old machines had one URL, and a request does not say which it takes it for.
 *
 * @throws RangeError with what to do about it
 */
export function refuseCollisions(routes: readonly LegacyRoute[]): void {
  for (const [index, route] of routes.entries())
    for (const other of routes.slice(index + 1)) {
      const samePath = legacyDialects[route.name].path === legacyDialects[other.name].path
      const apart =
        route.prefix !== undefined && other.prefix !== undefined && route.prefix !== other.prefix
      if (samePath && !apart)
        throw new RangeError(
          `${route.name} and ${other.name} have one URL; give each a prefix of its own`,
        )
    }
}
