/** `certvend export`: the credential in the form in which another program takes it, once. */
import path from 'node:path'
import {
  type Credential,
  isPkcs11Key,
  openCredentialStore,
  readUntrustedStore,
  systemClock,
} from '@certvend/client'
import { wantedSet } from '../consumer.ts'
import { parseFormatOptions } from '../consumer-settings.ts'
import { configurationError, type ExitCode } from '../failure.ts'
import { currentOf, isCurrent, prove, putSet, sweep } from '../file-set.ts'
import { type FormatName, formatNames, formats } from '../formats.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import type { Terminal } from '../terminal.ts'

export interface ExportFlags extends Flags {
  readonly format: string
  readonly out: string
  readonly name?: readonly string[]
  readonly keyFormat?: string
  readonly passwordFile?: string
  readonly awsRegion?: string
  readonly roleAlias?: string
  readonly credentialsEndpoint?: string
  readonly topic?: readonly string[]
  readonly address?: string
  readonly clientId?: string
  readonly owner?: string
  readonly group?: string
}

export async function exportCredential(flags: ExportFlags, terminal: Terminal): Promise<ExitCode> {
  const { stateDirectory } = await resolveSettings(flags)
  const directory = path.resolve(flags.out)
  const credential = await inUse(stateDirectory)
  const wanted = wantedSet(
    {
      name: 'export',
      format: formatOf(flags.format),
      directory,
      mode: flags.group === undefined ? 0o600 : 0o640,
      options: optionsOf(flags),
      timeLimitMs: 0,
      ...(flags.owner === undefined ? {} : { owner: flags.owner }),
      ...(flags.group === undefined ? {} : { group: flags.group }),
    },
    credential,
  )
  const changed = !isCurrent(wanted)
  if (changed) putSet(wanted)
  prove(directory)
  sweep(directory)
  const current = currentOf(directory)
  const files = wanted.files(current).map(({ name }) => path.join(current, name))
  terminal.out(
    flags.json
      ? JSON.stringify({ changed, certificateId: credential.certificateId, files }, undefined, 2)
      : files.join('\n'),
  )
  if (!changed) terminal.progress('nothing has changed, nothing was written')
  return 0
}

function formatOf(name: string): FormatName {
  const format = formatNames.find((one) => one === name)
  if (format) return format
  throw configurationError(
    `--format: there is no format ${JSON.stringify(name)}`,
    `the formats: ${formatNames.map((one) => `${one} (${formats[one].about})`).join('; ')}`,
  )
}

function optionsOf(flags: ExportFlags) {
  const names = Object.fromEntries(
    (flags.name ?? []).map((given) => {
      const [what = '', ...name] = given.split('=')
      return [what, name.join('=')]
    }),
  )
  const given: Readonly<Record<string, unknown>> = {
    names: flags.name === undefined ? undefined : names,
    key_format: flags.keyFormat,
    password_file: flags.passwordFile,
    aws_region: flags.awsRegion,
    role_alias: flags.roleAlias,
    credentials_endpoint: flags.credentialsEndpoint,
    topics: flags.topic,
    address: flags.address,
    client_id: flags.clientId,
  }
  const table = Object.fromEntries(Object.entries(given).filter(([, value]) => value !== undefined))
  const options = parseFormatOptions(table, process.cwd())
  if (typeof options === 'string')
    throw configurationError(options, 'certvend export --help shows how they are written')
  return options
}

/** Root reads a store that is another user's as it reads anything that another user wrote. */
async function inUse(stateDirectory: string): Promise<Credential> {
  const careful = process.platform === 'linux' && process.getuid?.() === 0
  const credential = careful
    ? readUntrustedStore(stateDirectory, systemClock.now())
    : (await openCredentialStore(stateDirectory, { readOnly: true })).current()
  if (!credential)
    throw configurationError(
      `${stateDirectory} holds no credential`,
      'certvend enroll gets one; --state-dir or --config says where it is',
    )
  if (isPkcs11Key(credential.privateKey))
    throw configurationError(
      'the private key lies in a token and never leaves it',
      'let the other program use the token itself, by the URI that certvend store check shows',
    )
  return credential
}
