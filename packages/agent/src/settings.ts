/** Flags over `agent.toml` over defaults: what this run of the command works with. */
import { existsSync } from 'node:fs'
import path from 'node:path'
import { defaultStateDirectory } from '@certvend/client'
import { type Config, type MqttSettings, readConfig, type Sourced } from './config.ts'
import type { ConsumerSettings } from './consumer-settings.ts'
import type { DialectSettings } from './dialect.ts'
import type { Renew } from './due.ts'
import { configurationError } from './failure.ts'
import type { SerialSource } from './serial.ts'

/** As commander reads them. */
export interface Flags {
  readonly server?: string
  readonly pin?: readonly string[]
  readonly serial?: string
  readonly tokenFile?: string
  readonly dialect?: string
  readonly endpoint?: string
  readonly endpointAnchors?: string
  readonly thingName?: string
  readonly stateDir?: string
  readonly config?: string
  readonly json?: boolean
  readonly once?: boolean
  readonly check?: boolean
  readonly again?: boolean
  readonly discard?: boolean
  readonly yes?: boolean
}

export interface Settings {
  /** Absolute. */
  readonly stateDirectory: string
  /** Where the daemon's sockets are; absolute. */
  readonly socketDirectory: string
  /** Absolute; absent for none. */
  readonly metricsFile?: string
  /** The configuration file that was read, if any. */
  readonly configFile?: string
  readonly url?: Sourced
  /** Files; empty when none was named. */
  readonly pins: readonly Sourced[]
  readonly serial: SerialSource
  readonly tokenFile?: Sourced
  readonly dialect: DialectSettings
  readonly renew: Renew
  readonly mqtt: MqttSettings
  /** Empty where none is configured. */
  readonly consumers: readonly ConsumerSettings[]
}

/** Where a configured gateway keeps its things. */
export interface Places {
  /** Read when it exists and no other is named. */
  readonly config: string
  /** The state directory when {@link Places.config} is what configured this gateway. */
  readonly state: string
  /** The sockets' place while the state is in {@link Places.state}. */
  readonly run: string
}

export const gatewayPlaces: Places = {
  config: '/etc/certvend/agent.toml',
  state: '/var/lib/certvend',
  run: '/run/certvend',
}

/**
 * Merges. Relative names on the command line are taken from the working directory.
 *
 * State directory: `--state-dir`, `state_directory`, `$STATE_DIRECTORY`, {@link Places.state} on a
 * configured gateway, else env-paths' data directory.
 *
 * @throws a configuration error
 */
export async function resolveSettings(
  flags: Flags,
  environment: NodeJS.ProcessEnv = process.env,
  places: Places = gatewayPlaces,
): Promise<Settings> {
  const configFile =
    given('--config', flags.config)?.value ??
    (existsSync(places.config) ? places.config : undefined)
  const config: Config = configFile === undefined ? { mqtt: {} } : readConfig(configFile)
  const url = given('--server', flags.server) ?? config.url
  const literal = given('--serial', flags.serial)
  const serial: SerialSource = literal
    ? { kind: 'literal', ...literal }
    : (config.serial ?? { kind: 'default', from: 'the serial' })
  const tokenFile = located('--token-file', flags.tokenFile) ?? config.tokenFile
  const dialect: DialectSettings = {
    ...config.dialect,
    ...defined('dialect', given('--dialect', flags.dialect)),
    ...defined('endpoint', given('--endpoint', flags.endpoint)),
    ...defined('endpointAnchors', located('--endpoint-anchors', flags.endpointAnchors)),
    ...defined('thingName', given('--thing-name', flags.thingName)),
  }
  const pins = flags.pin?.flatMap((file) => located('--pin', file) ?? []) ?? config.pins ?? []
  const explicit = located('--state-dir', flags.stateDir) ?? config.stateDirectory
  const onGateway = configFile === places.config && !environment.STATE_DIRECTORY
  const stateDirectory =
    explicit?.value ?? (onGateway ? places.state : await ownStateDirectory(environment))
  const runtime = environment.RUNTIME_DIRECTORY?.split(':')[0]
  return {
    stateDirectory,
    ...metricsPlace(config.metricsFile?.value, runtime),
    socketDirectory: runtime ?? (stateDirectory === places.state ? places.run : stateDirectory),
    ...(configFile === undefined ? {} : { configFile }),
    ...(url === undefined ? {} : { url }),
    pins,
    serial,
    ...(tokenFile === undefined ? {} : { tokenFile }),
    dialect,
    renew: config.renew ?? 'automatically',
    mqtt: config.mqtt,
    consumers: config.consumers ?? [],
  }
}

/** In the runtime directory, which is memory, unless a file was named; nowhere where that is empty. */
function metricsPlace(named: string | undefined, runtime: string | undefined) {
  const file = named ?? (runtime === undefined ? '' : path.join(runtime, 'metrics.prom'))
  return file === '' ? {} : { metricsFile: file }
}

async function ownStateDirectory(environment: NodeJS.ProcessEnv): Promise<string> {
  try {
    return await defaultStateDirectory(environment)
  } catch {
    throw configurationError(
      'no state directory: neither STATE_DIRECTORY nor HOME names an absolute path',
      'name one: --state-dir DIR',
    )
  }
}

const defined = <K extends string>(
  key: K,
  value: Sourced | undefined,
): Partial<Record<K, Sourced>> =>
  value === undefined ? {} : ({ [key]: value } as Record<K, Sourced>)

function given(from: string, value: string | undefined): Sourced | undefined {
  if (value === '') throw configurationError(`${from} is empty`)
  return value === undefined ? undefined : { value, from }
}

function located(from: string, value: string | undefined): Sourced | undefined {
  const named = given(from, value)
  return named && { ...named, value: path.resolve(named.value) }
}
