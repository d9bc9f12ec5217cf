/** What init has been told so far, and the files that it becomes. */
import path from 'node:path'
import { makeDirectory, replaceFile, syncDirectory } from '@certvend/client/durable'
import { gatewayPlaces } from '../settings.ts'

export interface Draft {
  /** `agent.toml`; absolute. */
  readonly file: string
  readonly url: string
  /** PEM. */
  readonly pins: string
  readonly dialect: string
  /** Absent: the board's own, or the machine's. */
  readonly serial?: string
  /** A secret; absent where it comes later. */
  readonly token?: string
  /** Absolute; absent: the default. */
  readonly stateDirectory?: string
}

const beside = ({ file }: Draft, name: string): string => path.join(path.dirname(file), name)

export const pinFile = (draft: Draft): string => beside(draft, 'vending-ca.pem')
/** Where the service takes it from (certvend.service), and where a daemon run by hand finds it. */
export const tokenFile = (draft: Draft): string => beside(draft, 'claim.token')

const isGateways = ({ file }: Draft): boolean => file === gatewayPlaces.config

/** The text of `agent.toml`; it holds no secret. */
export function draftText(draft: Draft): string {
  const { url, dialect, serial, stateDirectory } = draft
  const line = (key: string, value: string): string => `${key} = ${JSON.stringify(value)}`
  return [
    '# Made by certvend init. man certvend.toml has every key.',
    line('url', url),
    line('pins', path.basename(pinFile(draft))),
    ...(dialect === 'certvend' ? [] : [line('dialect', dialect)]),
    ...(serial === undefined ? [] : [line('serial', serial)]),
    // The service is handed its token by systemd, as its user could not read it.
    ...(isGateways(draft) ? [] : [line('token_file', path.basename(tokenFile(draft)))]),
    ...(stateDirectory === undefined ? [] : [line('state_directory', stateDirectory)]),
    '',
  ].join('\n')
}

/**
 * Writes pin, token and, last, `agent.toml`, each as a whole; the files that were written.
 *
 * @throws {CertvendError} `ERR_STORE_UNWRITABLE`
 */
export function writeDraft(draft: Draft): string[] {
  const everybodyReads = { mode: 0o644 }
  const directory = path.dirname(draft.file)
  makeDirectory(directory)
  replaceFile(pinFile(draft), draft.pins, everybodyReads)
  if (draft.token !== undefined) replaceFile(tokenFile(draft), `${draft.token}\n`)
  syncDirectory(directory)
  replaceFile(draft.file, draftText(draft), everybodyReads)
  syncDirectory(directory)
  return [pinFile(draft), ...(draft.token === undefined ? [] : [tokenFile(draft)]), draft.file]
}
