/**
 * How the vending machine speaks, and what its dialect has to be told: the part of the settings that
 * only the old vending machines need.
 */
import {
  chooseDialect,
  createEndpoint,
  type DialectName,
  type DialectOptions,
  dialectNames,
  saltedToken,
  type TokenFormula,
  tokenFormulas,
} from '@certvend/client'
import type { Sourced } from './config.ts'
import { configurationError } from './failure.ts'
import { readPlainFile } from './plain-file.ts'
import { readSecretFile } from './token.ts'

/** As they were written, each with its place; every one may be absent. */
export interface DialectSettings {
  /** Default `certvend`. */
  readonly dialect?: Sourced
  /** The MQTT server, `host` or `host:port`. */
  readonly endpoint?: Sourced
  /** File of the CAs that vouch for it; absolute. Default: Amazon Root CA 1 and 3. */
  readonly endpointAnchors?: Sourced
  readonly thingName?: Sourced
  /** File of the salt that tokens are made of; absolute. */
  readonly saltFile?: Sourced
  readonly tokenFormula?: Sourced
  readonly authorizationScheme?: Sourced
}

/** Runs a judge of the client and names where the value came from. */
function judged<T>(from: string, judge: () => T): T {
  try {
    return judge()
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw configurationError(`${from}: ${error.message}`)
  }
}

/** @throws a configuration error for a name that is none */
export function dialectName({ dialect }: DialectSettings): DialectName {
  if (!dialect) return 'certvend'
  const name = dialectNames.find((one) => one === dialect.value)
  if (!name)
    throw configurationError(
      `${dialect.from}: no such dialect`,
      `the dialects are ${dialectNames.join(', ')}; certvend probe URL tells which one a URL speaks`,
    )
  return name
}

/** @throws a configuration error */
export function readDialect(settings: DialectSettings): DialectOptions {
  const { endpoint, endpointAnchors, thingName, authorizationScheme } = settings
  if (endpointAnchors && !endpoint)
    throw configurationError(
      `${endpointAnchors.from}: anchors without the endpoint that they vouch for`,
      'name it: --endpoint HOST:PORT, or endpoint = "HOST:PORT"',
    )
  const anchors = endpointAnchors
    ? readPlainFile('the file of anchors', endpointAnchors).text
    : undefined
  const options: DialectOptions = {
    name: dialectName(settings),
    ...(endpoint
      ? { endpoint: judged(endpoint.from, () => createEndpoint(endpoint.value, anchors)) }
      : {}),
    ...(thingName ? { thingName: thingName.value } : {}),
    ...(authorizationScheme ? { authorizationScheme: authorizationScheme.value } : {}),
  }
  const said = settings.dialect ?? thingName ?? endpoint ?? authorizationScheme
  return judged(said?.from ?? 'dialect', () => chooseDialect(options))
}

/** The token that is made of a salt and the serial; nothing where no salt was named. */
export function readSaltedToken(
  { saltFile, tokenFormula }: DialectSettings,
  deviceSerial: string,
  environment: NodeJS.ProcessEnv,
): string | undefined {
  const formulas = tokenFormulas.map((name) => `"${name}"`).join(' or ')
  if (!saltFile) {
    if (!tokenFormula) return undefined
    throw configurationError(`${tokenFormula.from}: a formula without a salt: name salt_file`)
  }
  const formula = tokenFormulas.find((one) => one === tokenFormula?.value)
  if (!formula)
    throw configurationError(
      `${(tokenFormula ?? saltFile).from}: which formula makes the token is not said`,
      `two are in use and differ: token_formula = ${formulas}`,
    )
  const salt = readSecretFile('the salt file', saltFile, environment).replace(/\r?\n$/, '')
  return judged(saltFile.from, () =>
    saltedToken(formula satisfies TokenFormula, { salt, deviceSerial }),
  )
}
