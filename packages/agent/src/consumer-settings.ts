/** `[[consumers]]` of agent.toml: the programs that are handed the identity, in their order. */
import path from 'node:path'
import * as v from 'valibot'
import { type FormatName, type FormatOptions, formatNames } from './formats.ts'

const oneLine = (message: string) =>
  v.pipe(v.string(message), v.nonEmpty('must not be empty'), v.regex(/^[^\r\n\0]*$/, 'one line'))
const matching = (pattern: RegExp, message: string) =>
  v.pipe(v.string('expected a string'), v.regex(pattern, message))
const fileName = matching(/^[A-Za-z0-9][A-Za-z0-9._-]*$/, 'expected a plain file name')
const argv = v.pipe(
  v.array(v.string('expected strings'), 'expected an array: ["/PROGRAM", "ARGUMENT"]'),
  v.check(([program = '']) => path.isAbsolute(program), 'the program is named by its full path'),
)

/** What a format may be told, as in agent.toml. */
const formatKeys = {
  names: v.optional(
    v.strictObject(
      {
        key: v.optional(fileName),
        certificate: v.optional(fileName),
        anchors: v.optional(fileName),
      },
      'expected a table: names = { key = "FILE" }',
    ),
  ),
  key_format: v.optional(v.picklist(['pkcs8', 'traditional'], 'expected "pkcs8" or "traditional"')),
  password_file: v.optional(oneLine('expected a file name')),
  aws_region: v.optional(matching(/^[a-z0-9-]{1,40}$/, 'expected a region such as eu-west-1')),
  role_alias: v.optional(matching(/^[\w=,@-]{1,128}$/, 'not a role alias')),
  credentials_endpoint: v.optional(matching(/^[A-Za-z0-9.-]{1,253}$/, 'not a host name')),
  address: v.optional(matching(/^[A-Za-z0-9.:[\]-]{1,253}:\d{1,5}$/, 'expected "HOST:PORT"')),
  client_id: v.optional(matching(/^[A-Za-z0-9:_{}-]{1,128}$/, 'not a client id')),
  topics: v.optional(
    v.pipe(
      v.array(oneLine('expected strings'), 'expected an array'),
      v.minLength(1, 'name at least one topic'),
    ),
  ),
}

export const consumerKeys = {
  name: matching(/^[A-Za-z0-9][A-Za-z0-9_-]{0,31}$/, 'letters, digits, _ and -, at most 32'),
  format: v.picklist(formatNames, `expected one of ${formatNames.join(', ')}`),
  directory: v.pipe(
    oneLine('expected a directory'),
    v.check((name) => path.isAbsolute(name), 'expected an absolute path'),
  ),
  owner: v.optional(matching(/^[a-z_][a-z0-9_-]{0,31}$/, 'expected a user name')),
  group: v.optional(matching(/^[a-z_][a-z0-9_-]{0,31}$/, 'expected a group name')),
  mode: v.optional(matching(/^0[46][04]0$/, 'expected "0600", "0640", "0400" or "0440"')),
  ...formatKeys,
  unit: v.optional(matching(/^[A-Za-z0-9:_.@\\-]{1,255}\.service$/, 'expected NAME.service')),
  action: v.optional(v.picklist(['reload', 'restart'], 'expected "reload" or "restart"')),
  command: v.optional(argv),
  health: v.optional(argv),
  time_limit: v.optional(
    v.pipe(
      v.number('expected a number of seconds'),
      v.minValue(1, 'must be 1 second or more'),
      v.maxValue(600, 'must be 600 seconds or less'),
    ),
  ),
}

export const ConsumersTable = v.pipe(
  v.array(
    v.pipe(
      v.strictObject(consumerKeys, 'expected a table: [[consumers]]'),
      v.check((one) => !(one.unit && one.command), 'unit or command, not both'),
      v.check((one) => !one.action || one.unit !== undefined, 'action goes with unit'),
    ),
    'expected [[consumers]]',
  ),
  v.check(
    (all) => new Set(all.map(({ name }) => name)).size === all.length,
    'two consumers have one name',
  ),
  v.check(
    (all) => new Set(all.map(({ directory }) => path.resolve(directory))).size === all.length,
    'two consumers have one directory',
  ),
)

/** A program that is handed the identity after each change. */
export interface ConsumerSettings {
  readonly name: string
  readonly format: FormatName
  /** Absolute; for certvend alone. */
  readonly directory: string
  /** Who may read the private key. Default: root alone. */
  readonly owner?: string
  readonly group?: string
  /** Of files with the private key. Default 0640 with a group, else 0600. */
  readonly mode: number
  readonly options: FormatOptions
  /** What makes it read the new identity. None: it reads by itself. */
  readonly wake?:
    | { readonly unit: string; readonly action: 'reload' | 'restart' }
    | { readonly command: readonly string[] }
  /** Exit code 0: the program is well. Default for a unit: it stays active. */
  readonly health?: readonly string[]
  /** For waking it and for its health, each, in milliseconds. */
  readonly timeLimitMs: number
}

/** @param base what relative file names are taken from */
export function consumerSettings(
  table: v.InferOutput<typeof ConsumersTable>[number],
  base: string,
): ConsumerSettings {
  const { name, format, owner, group, unit, action, command, health } = table
  return {
    name,
    format,
    directory: path.resolve(table.directory),
    ...(owner === undefined ? {} : { owner }),
    ...(group === undefined ? {} : { group }),
    mode:
      table.mode === undefined ? (group === undefined ? 0o600 : 0o640) : parseInt(table.mode, 8),
    options: formatOptions(table, base),
    ...(unit === undefined ? {} : { wake: { unit, action: action ?? 'restart' } }),
    ...(command === undefined ? {} : { wake: { command } }),
    ...(health === undefined ? {} : { health }),
    timeLimitMs: (table.time_limit ?? 30) * 1000,
  }
}

const FormatTable = v.object(formatKeys)

/** The same keys, from agent.toml or from the options of `certvend export`. */
function formatOptions(table: v.InferOutput<typeof FormatTable>, base: string): FormatOptions {
  const { names, key_format, password_file, aws_region, role_alias, credentials_endpoint } = table
  const given = Object.entries(names ?? {}).filter(([, name]) => name !== undefined)
  return {
    ...(given.length > 0 ? { names: Object.fromEntries(given) } : {}),
    ...(key_format === undefined ? {} : { keyFormat: key_format }),
    ...(password_file === undefined ? {} : { passwordFile: path.resolve(base, password_file) }),
    ...(aws_region === undefined ? {} : { awsRegion: aws_region }),
    ...(role_alias === undefined ? {} : { roleAlias: role_alias }),
    ...(credentials_endpoint === undefined ? {} : { credentialsEndpoint: credentials_endpoint }),
    ...(table.topics === undefined ? {} : { topics: table.topics }),
    ...(table.address === undefined ? {} : { address: table.address }),
    ...(table.client_id === undefined ? {} : { clientId: table.client_id }),
  }
}

/**
 * Judges options that came by the command line.
 *
 * @returns the options, or why not
 */
export function parseFormatOptions(table: unknown, base: string): FormatOptions | string {
  const result = v.safeParse(v.strictObject(formatKeys), table)
  if (result.success) return formatOptions(result.output, base)
  const [issue] = result.issues
  const at = issue.path?.map(({ key }) => String(key).replaceAll('_', '-')).join('.')
  return `--${at}: ${issue.message}`
}
