/**
 * `agent.toml`: read, judged, and every complaint with file and line.
 *
 * Every key may be left out. Unknown keys are refused, because a setting that is silently ignored is
 * found out in the field; the nearest known key is suggested. Values are never quoted in an error: one
 * of them may be a token that landed in the wrong place.
 */
import path from 'node:path'
import { parse, TomlError } from 'smol-toml'
import * as v from 'valibot'
import {
  type ConsumerSettings,
  ConsumersTable,
  consumerKeys,
  consumerSettings,
} from './consumer-settings.ts'
import type { DialectSettings } from './dialect.ts'
import type { Renew } from './due.ts'
import { configurationError } from './failure.ts'
import { readPlainFile } from './plain-file.ts'
import { type SerialSource, serialOrigins } from './serial.ts'

const text = v.pipe(v.string('expected a string'), v.nonEmpty('must not be empty'))
const flag = v.boolean('expected true or false')
const isCommand = ([program = '']: string[]): boolean => path.isAbsolute(program)

const renewChoices = ['automatically', 'when asked'] as const satisfies readonly Renew[]

const mqttKeys = {
  /** Seconds between signs of life; IoT Core accepts 30 to 1200. */
  keep_alive: v.optional(
    v.pipe(
      v.number('expected a number of seconds'),
      v.integer('expected whole seconds'),
      v.minValue(30, 'must be 30 seconds or more'),
      v.maxValue(1200, 'must be 1200 seconds or less'),
    ),
  ),
  /** Where "online" and "offline" are published; empty for nowhere. */
  status_topic: v.optional(
    v.pipe(
      v.string('expected a string'),
      v.check((topic) => !/[+#\0]/.test(topic), 'a topic to publish to holds no + or #'),
      v.maxLength(256, 'IoT Core takes topics of at most 256 characters'),
    ),
  ),
  /** Seconds between heartbeats; 0 for none. */
  heartbeat: v.optional(
    v.pipe(
      v.number('expected a number of seconds'),
      v.integer('expected whole seconds'),
      v.check((value) => value === 0 || value >= 10, 'must be 10 seconds or more, or 0 for none'),
      v.maxValue(86_400, 'must be 86400 seconds or less'),
    ),
  ),
  heartbeat_topic: v.optional(
    v.pipe(
      v.string('expected a string'),
      v.nonEmpty('must not be empty; heartbeat = 0 sends none'),
      v.check((topic) => !/[+#\0]/.test(topic), 'a topic to publish to holds no + or #'),
      v.maxLength(256, 'IoT Core takes topics of at most 256 characters'),
    ),
  ),
  /** Whether the server keeps the last status for later subscribers. */
  retain_status: v.optional(flag),
}

/** What the old vending machines have to be told. */
const dialectKeys = {
  dialect: v.optional(text),
  endpoint: v.optional(text),
  endpoint_anchors: v.optional(text),
  thing_name: v.optional(text),
  salt_file: v.optional(text),
  token_formula: v.optional(text),
  authorization_scheme: v.optional(text),
}

const keys = {
  url: v.optional(text),
  pins: v.optional(
    v.union(
      [text, v.pipe(v.array(text), v.minLength(1, 'name at least one file'))],
      'expected a file name, or an array of file names',
    ),
  ),
  serial: v.optional(
    v.union(
      [
        text,
        v.strictObject({ file: text }),
        v.strictObject({ command: v.pipe(v.array(v.string()), v.check<string[]>(isCommand)) }),
        v.strictObject({ from: v.picklist(serialOrigins) }),
      ],
      `expected a string, { file = "FILE" }, { command = ["/PROGRAM", …] } or { from = "…" } with ${serialOrigins.join(', ')}`,
    ),
  ),
  token_file: v.optional(text),
  ...dialectKeys,
  state_directory: v.optional(text),
  metrics_file: v.optional(v.string('expected a string')),
  /** Whether the agent renews the certificate by itself. */
  renew: v.optional(v.picklist(renewChoices, 'expected "automatically" or "when asked"')),
  mqtt: v.optional(v.strictObject(mqttKeys, 'expected a table')),
  consumers: v.optional(ConsumersTable),
}
const tables: Readonly<Record<string, object>> = { mqtt: mqttKeys, consumers: consumerKeys }
const File = v.strictObject(keys)

/** A value, and where it came from: `--server`, or `/etc/certvend/agent.toml:3`. */
export interface Sourced {
  readonly value: string
  readonly from: string
}

/** Table `[mqtt]` of `agent.toml`. */
export interface MqttSettings {
  /** Default 60. */
  readonly keepAliveSeconds?: number
  /** `{thingName}` stands for the thing name. Default `certvend/{thingName}/status`; empty for none. */
  readonly statusTopic?: string
  /** Default false: IoT Core closes on a retained message unless the policy allows it. */
  readonly retainStatus?: boolean
  /** Default 0: no heartbeats. */
  readonly heartbeatSeconds?: number
  /** `{thingName}` stands for the thing name. Default `certvend/{thingName}/heartbeat`. */
  readonly heartbeatTopic?: string
}

/** What `agent.toml` says; file names are absolute, taken relative to the file's own directory. */
export interface Config {
  readonly url?: Sourced
  readonly pins?: readonly Sourced[]
  readonly serial?: SerialSource
  readonly tokenFile?: Sourced
  readonly dialect?: DialectSettings
  readonly stateDirectory?: Sourced
  readonly metricsFile?: Sourced
  /** Default `automatically`. */
  readonly renew?: Renew
  readonly mqtt: MqttSettings
  /** In their order. */
  readonly consumers?: readonly ConsumerSettings[]
}

/**
 * Reads `file`.
 *
 * @throws a configuration error that names file and line.
 */
export function readConfig(file: string): Config {
  const { text: content } = readPlainFile('the configuration', { value: file, from: file })
  return parseConfig(content, file)
}

/** As {@link readConfig}, of text already read. */
export function parseConfig(content: string, file: string): Config {
  let table: unknown
  try {
    table = parse(content)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const reason = error.message.split('\n', 1)[0]?.replace(/^Invalid TOML document: /, '')
    throw configurationError(`${file}:${error.line}:${error.column}: ${reason}`)
  }
  const result = v.safeParse(File, table)
  if (!result.success) throw refuse(result.issues[0], content, file)
  const {
    url,
    pins,
    serial,
    token_file,
    state_directory,
    metrics_file,
    renew,
    mqtt = {},
    consumers,
  } = result.output
  const directory = path.dirname(path.resolve(file))
  const at = (key: string): string => place(content, file, [key])
  const sourced = (key: string, value: string): Sourced => ({ value, from: at(key) })
  const located = (key: string, name: string): Sourced =>
    sourced(key, path.resolve(directory, name))
  return {
    ...(url === undefined ? {} : { url: sourced('url', url) }),
    ...(pins === undefined ? {} : { pins: [pins].flat().map((pin) => located('pins', pin)) }),
    ...(serial === undefined ? {} : { serial: serialSource(serial, at('serial'), directory) }),
    ...(token_file === undefined ? {} : { tokenFile: located('token_file', token_file) }),
    ...dialectSettings(result.output, sourced, located),
    ...(state_directory === undefined
      ? {}
      : { stateDirectory: located('state_directory', state_directory) }),
    ...(metrics_file === undefined
      ? {}
      : {
          metricsFile:
            metrics_file === ''
              ? sourced('metrics_file', '')
              : located('metrics_file', metrics_file),
        }),
    ...(renew === undefined ? {} : { renew }),
    mqtt: {
      ...(mqtt.keep_alive === undefined ? {} : { keepAliveSeconds: mqtt.keep_alive }),
      ...(mqtt.status_topic === undefined ? {} : { statusTopic: mqtt.status_topic }),
      ...(mqtt.retain_status === undefined ? {} : { retainStatus: mqtt.retain_status }),
      ...(mqtt.heartbeat === undefined ? {} : { heartbeatSeconds: mqtt.heartbeat }),
      ...(mqtt.heartbeat_topic === undefined ? {} : { heartbeatTopic: mqtt.heartbeat_topic }),
    },
    ...(consumers === undefined
      ? {}
      : { consumers: consumers.map((consumer) => consumerSettings(consumer, directory)) }),
  }
}

function dialectSettings(
  file: v.InferOutput<typeof File>,
  sourced: (key: string, value: string) => Sourced,
  located: (key: string, name: string) => Sourced,
): { dialect?: DialectSettings } {
  const names = {
    dialect: 'dialect',
    endpoint: 'endpoint',
    endpoint_anchors: 'endpointAnchors',
    thing_name: 'thingName',
    salt_file: 'saltFile',
    token_formula: 'tokenFormula',
    authorization_scheme: 'authorizationScheme',
  } as const satisfies Record<keyof typeof dialectKeys, keyof DialectSettings>
  const given = (Object.keys(names) as (keyof typeof names)[]).flatMap((key) => {
    const value = file[key]
    if (value === undefined) return []
    const isFile = key === 'endpoint_anchors' || key === 'salt_file'
    return [[names[key], isFile ? located(key, value) : sourced(key, value)]]
  })
  return given.length === 0 ? {} : { dialect: Object.fromEntries(given) }
}

function serialSource(
  serial: NonNullable<v.InferOutput<typeof File>['serial']>,
  from: string,
  directory: string,
): SerialSource {
  if (typeof serial === 'string') return { kind: 'literal', value: serial, from }
  if ('file' in serial) return { kind: 'file', file: path.resolve(directory, serial.file), from }
  if ('command' in serial) return { kind: 'command', command: serial.command, from }
  return { kind: serial.from, from }
}

function refuse(issue: v.InferIssue<typeof File>, content: string, file: string): Error {
  const steps = (issue.path ?? []).map(({ key }) => key)
  const names = steps.filter((step) => typeof step === 'string').map(String)
  const nth = steps.find((step) => typeof step === 'number')
  const where = place(content, file, names, typeof nth === 'number' ? nth : undefined)
  const unknown = issue.type === 'strict_object' && issue.expected === 'never'
  if (!unknown) return configurationError(`${where}: ${names.join('.')}: ${issue.message}`)
  const key = names.at(-1) ?? ''
  const known = Object.keys((names.length > 1 ? tables[names[0] ?? ''] : keys) ?? {})
  const near = nearest(key, known)
  return configurationError(
    `${where}: unknown key "${names.join('.')}"`,
    /^token$/i.test(key)
      ? 'the token lies in a file of its own, readable by this user only: token_file = "FILE"'
      : near === undefined
        ? `the keys are ${known.join(', ')}`
        : `did you mean "${[...names.slice(0, -1), near].join('.')}"?`,
  )
}

/**
 * `file:line` of a key's definition, or of the table that it stands in, or `file`.
 *
 * @param nth which of several tables of that name, from 0
 */
function place(content: string, file: string, names: readonly string[], nth?: number): string {
  const line = lineOf(content, names, nth) ?? lineOf(content, names.slice(0, 1), nth)
  return line === undefined ? file : `${file}:${line}`
}

function lineOf(content: string, names: readonly string[], nth = 0): number | undefined {
  const [table, key] = names.length > 1 ? [names[0], names[1]] : ['', names[0]]
  const written = (name: string | undefined): string =>
    `["']?${(name ?? '').replace(/[^A-Za-z0-9_-]/g, '\\$&')}["']?`
  const header = /^\s*\[+\s*["']?([^"'\]]*?)["']?\s*\]/
  const assignment = new RegExp(`^\\s*${written(key)}\\s*[.=]`)
  let inside = ''
  let count = -1
  for (const [index, line] of content.split('\n').entries()) {
    const opened = header.exec(line)?.[1]
    inside = opened ?? inside
    if (opened !== undefined && opened === names[0]) count++
    const named = opened === names.join('.') && count >= nth
    if (named || (inside === table && (table === '' || count >= nth) && assignment.test(line)))
      return index + 1
  }
  return undefined
}

/** What people write who know the flags, or other programs. */
const synonyms: Readonly<Record<string, string>> = {
  server: 'url',
  vending_url: 'url',
  pin: 'pins',
  ca: 'pins',
  device_serial: 'serial',
  state_dir: 'state_directory',
  keepalive: 'keep_alive',
}

/** The known key that was probably meant. */
export function nearest(key: string, known: readonly string[]): string | undefined {
  const plain = key
    .replace(/([a-z])([A-Z])/g, '$1_$2')
    .replaceAll('-', '_')
    .toLowerCase()
  const synonym = synonyms[plain]
  if (synonym !== undefined && known.includes(synonym)) return synonym
  const [best] = known
    .map((name) => ({ name, distance: editDistance(plain, name) }))
    .sort((a, b) => a.distance - b.distance)
  return best && best.distance <= Math.max(2, best.name.length / 3) ? best.name : undefined
}

/** Insertions, deletions and replacements that make `b` of `a`. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index)
  for (const [i, letter] of [...a].entries()) {
    const next = [i + 1]
    for (const [j, other] of [...b].entries())
      next.push(
        Math.min(
          (row[j] ?? 0) + (letter === other ? 0 : 1),
          (row[j + 1] ?? 0) + 1,
          (next[j] ?? 0) + 1,
        ),
      )
    row = next
  }
  return row[b.length] ?? 0
}
