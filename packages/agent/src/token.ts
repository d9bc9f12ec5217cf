/**
 * The one-time token's life: where it is found, how it gets off a partition that everybody reads,
 * and when our own copy of it is destroyed.
 *
 *     --token-file or token_file      its owner's file: read, never touched
 *     <state directory>/claim-token   our copy, made by `import`; removed after the first session
 *     $CREDENTIALS_DIRECTORY          systemd's: read, never touched
 */
import fs from 'node:fs'
import path from 'node:path'
import {
  createClaim,
  type DialectName,
  isCertvendError,
  openCredentialStore,
} from '@certvend/client'
import { eraseFile, makeDirectory, replaceFile, syncDirectory } from '@certvend/client/durable'
import type { Sourced } from './config.ts'
import { configurationError, isConfigurationError } from './failure.ts'
import type { Log } from './log.ts'
import { readPlainFile } from './plain-file.ts'

/** In the state directory, and among systemd's credentials. */
const fileName = 'claim-token'

/** Where the boot partition is that a card reader shows, on Raspberry Pi OS now and before 2023. */
export const bootTokens: readonly string[] = [
  '/boot/firmware/certvend.token',
  '/boot/certvend.token',
]

/** Where the service is handed its token from (certvend.service), for whoever looks from outside of it. */
export const serviceToken = '/etc/certvend/claim.token'

export const ownCopy = (stateDirectory: string): string => path.join(stateDirectory, fileName)

/** Where the token lies when no file was named; nothing when it lies nowhere. */
export function findToken(
  stateDirectory: string,
  environment: NodeJS.ProcessEnv,
): Sourced | undefined {
  const own = ownCopy(stateDirectory)
  if (fs.existsSync(own)) return { value: own, from: 'imported' }
  const handed = environment.CREDENTIALS_DIRECTORY
  if (handed === undefined) return undefined
  const credential = path.join(handed, fileName)
  // `none` is what the unit sets where there is no file: systemd takes no empty default.
  const given = fs.existsSync(credential) && fs.readFileSync(credential, 'utf8').trim() !== 'none'
  return given ? { value: credential, from: 'LoadCredential' } : undefined
}

/** Readable or writable by others, or writable by the group. A group may read: daemons are given files so. */
const tooOpen = 0o027

/**
 * Reads and judges the token.
 *
 * @throws a configuration error, which never holds any of it
 */
export function readToken(
  tokenFile: Sourced,
  environment: NodeJS.ProcessEnv,
  dialect: DialectName = 'certvend',
): string {
  return judgeToken(readSecretFile('the token file', tokenFile, environment), tokenFile, dialect)
}

/**
 * The text of a file that holds a secret, which other users must not be able to read.
 *
 * @throws a configuration error, which never holds any of it
 */
export function readSecretFile(
  what: string,
  secretFile: Sourced,
  environment: NodeJS.ProcessEnv,
): string {
  const { value: file, from } = secretFile
  const { text, found } = readPlainFile(what, secretFile)
  // systemd guards the directory of credentials, whatever the modes in it look like from inside.
  const guarded =
    environment.CREDENTIALS_DIRECTORY !== undefined &&
    path.dirname(file) === path.resolve(environment.CREDENTIALS_DIRECTORY)
  if (!guarded && (found.mode & tooOpen) !== 0)
    throw configurationError(
      `${from}: ${what} ${file} is open to other users`,
      `take that away: chmod 600 ${file}`,
    )
  return text
}

function judgeToken(text: string, { value: file, from }: Sourced, dialect: DialectName): string {
  const token = text.trim()
  if (token === '') throw configurationError(`${from}: the token file ${file} is empty`)
  try {
    return createClaim({ deviceSerial: 'any', token, dialect }).token
  } catch {
    throw configurationError(
      `${from}: the token file ${file} holds no token`,
      dialect === 'certvend'
        ? 'a token is 8 to 512 letters, digits and -._~+/ on one line, and nothing else is in the file'
        : 'a token is 1 to 512 visible characters on one line, and nothing else is in the file',
    )
  }
}

export interface Keeping {
  readonly stateDirectory: string
  readonly log: Log
  /** Whose tokens are taken. Default `certvend`. */
  readonly dialect?: DialectName
}

/**
 * Moves a token from the first of `files` that is there into the state directory (0600), then
 * overwrites and removes it where it lay. The copy is durable before the original goes. With a
 * credential in the store nothing is moved; a token that cannot be erased is reported.
 *
 * The copy belongs to the state directory's owner, also when root makes it.
 *
 * @throws {CertvendError} of the store
 */
export async function importToken(
  files: readonly string[],
  { stateDirectory, log, dialect }: Keeping,
): Promise<'none' | 'moved' | 'left'> {
  const file = files.find((name) => fs.existsSync(name))
  if (file === undefined) return 'none'
  const source = { value: file, from: 'boot partition' }
  let text: string
  try {
    text = readPlainFile('the token file', source).text
  } catch (error) {
    if (!isConfigurationError(error)) throw error
    log({ event: 'token.unusable', path: file, message: error.message })
    return 'left'
  }
  if (
    !(await keepToken(text, { path: file, stateDirectory, log, ...(dialect ? { dialect } : {}) }))
  )
    return 'left'
  try {
    eraseFile(file)
    log({ event: 'token.imported', path: file })
    return 'moved'
  } catch (error) {
    if (!isCertvendError(error)) throw error
    log({ event: 'token.exposed', path: file, message: error.message })
    return 'left'
  }
}

/**
 * Makes our copy of the token that `text` holds; `path` is where it came from. False when there is
 * a credential already, or no token in it, which is logged.
 *
 * @throws {CertvendError} of the store
 */
export async function keepToken(
  text: string,
  { path: from, stateDirectory, log, dialect = 'certvend' }: Keeping & { readonly path: string },
): Promise<boolean> {
  const store = await openCredentialStore(stateDirectory, { readOnly: true })
  if (store.current()) {
    log({ event: 'token.exposed', path: from, message: 'not needed: a credential is stored' })
    return false
  }
  let token: string
  try {
    token = judgeToken(text, { value: from, from: 'import-token' }, dialect)
  } catch (error) {
    if (!isConfigurationError(error)) throw error
    log({ event: 'token.unusable', path: from, message: error.message })
    return false
  }
  makeDirectory(store.directory)
  const own = ownCopy(store.directory)
  const owner = fs.statSync(store.directory)
  const foreign = owner.uid !== process.getuid?.()
  if (readIfThere(own) !== token) replaceFile(own, token, foreign ? { owner } : {})
  syncDirectory(store.directory)
  return true
}

/** Destroys our copy, if there is one. */
export function destroyOwnCopy(stateDirectory: string, log: Log): void {
  const own = ownCopy(stateDirectory)
  if (!fs.existsSync(own)) return
  try {
    eraseFile(own)
    log({ event: 'token.destroyed', path: own })
  } catch (error) {
    if (!isCertvendError(error)) throw error
    log({ event: 'token.exposed', path: own, message: error.message })
  }
}

function readIfThere(file: string): string | undefined {
  try {
    return fs.readFileSync(file, 'utf8')
  } catch {
    return undefined
  }
}
