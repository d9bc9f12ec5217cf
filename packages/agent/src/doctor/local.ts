/** What doctor sees on this machine: settings, files, store, space. */
import { X509Certificate } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import {
  amazonTrustAnchors,
  type CredentialStore,
  createVendingServer,
  type DialectName,
  isCertvendError,
  openCredentialStore,
  parseTrustAnchors,
} from '@certvend/client'
import { describeCertificate } from '@certvend/client/trace'
import type { Sourced } from '../config.ts'
import { readDialect, readSaltedToken } from '../dialect.ts'
import { readPin } from '../enrollment.ts'
import { configurationError, isConfigurationError } from '../failure.ts'
import { readPlainFile } from '../plain-file.ts'
import { readSerial } from '../serial.ts'
import { gatewayPlaces, type Settings } from '../settings.ts'
import { bootTokens, findToken, readToken, serviceToken } from '../token.ts'
import type { ClaimParts, Evidence, OpenFile, Read, Space } from './evidence.ts'

/** What `read` gives, or the configuration error that it throws. */
export function attempt<T>(read: () => T): Read<T> {
  try {
    return { ok: true, value: read() }
  } catch (error) {
    if (!isConfigurationError(error)) throw error
    return { ok: false, error }
  }
}

/** URL, pins, serial and token, each judged by itself, so that two mistakes are two findings. */
export function readParts(settings: Settings, environment: NodeJS.ProcessEnv): ClaimParts {
  const { url, pins, serial } = settings
  const written = serial.kind !== 'default'
  const dialect = attempt(() => readDialect(settings.dialect))
  const name = dialect.ok ? dialect.value.name : 'certvend'
  return {
    dialect,
    ...(url ? { url: attempt(() => judgeUrl(url, name)) } : {}),
    pins: pins.map((pin) => ({ file: pin.value, read: attempt(() => describePin(readPin(pin))) })),
    serial: { ...attempt(() => readSerial(serial, { environment }).value), written },
    token: tokenOf(settings, name, environment),
  }
}

function judgeUrl({ value: url, from }: Sourced, dialect: DialectName): URL {
  const plain = dialect === 'express-2017' && url.startsWith('http:')
  try {
    return createVendingServer({ url, dialect, ...(plain ? {} : { pins: someCa().pem }) }).url
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw configurationError(`${from}: ${error.message}`, 'url = "https://HOST"')
  }
}

/** Stands for pins where only the URL is judged. */
const someCa = amazonTrustAnchors

const describePin = (pem: string) =>
  parseTrustAnchors(pem).certificates.map((one) => describeCertificate(one))

function tokenOf(
  settings: Settings,
  dialect: DialectName,
  environment: NodeJS.ProcessEnv,
): ClaimParts['token'] {
  const { tokenFile, stateDirectory, configFile } = settings
  if (settings.dialect.saltFile ?? settings.dialect.tokenFormula) {
    const salted = attempt(() => readSaltedToken(settings.dialect, 'any', environment))
    return salted.ok ? { ok: true, value: 'present' } : salted
  }
  let named = tokenFile
  try {
    named ??= findToken(stateDirectory, environment)
  } catch {
    return 'absent' // in a place that this user may not look at
  }
  const service = configFile === gatewayPlaces.config ? [serviceToken] : []
  const elsewhere = [...service, ...bootTokens].find((file) => fs.existsSync(file))
  const found = named ?? (elsewhere ? { value: elsewhere, from: elsewhere } : undefined)
  if (!found) return 'absent'
  // Who may read it is looked at by itself; on the boot partition everybody may, until it is moved.
  const { mode } = fs.statSync(found.value, { throwIfNoEntry: false }) ?? { mode: 0 }
  if (found.from === 'boot partition' || bootTokens.includes(found.value))
    return { ok: true, value: 'present' }
  if ((mode & tooOpen) !== 0) return { ok: true, value: 'present' }
  const read = attempt(() => readToken(found, environment, dialect))
  return read.ok ? { ok: true, value: 'present' } : read
}

const tooOpen = 0o027

/** Files that others may read or change and should not. */
export function openFiles(settings: Settings): OpenFile[] {
  const judge = (file: string | undefined, secret: boolean): OpenFile[] => {
    if (file === undefined) return []
    const found = statOf(file)
    if (!found?.isFile()) return []
    const { mode } = found
    const open = (who: OpenFile['who'], may: OpenFile['may']): OpenFile[] => [
      { path: file, who, may, mode: secret ? '600' : '644' },
    ]
    if ((mode & 0o002) !== 0) return open('everybody', 'change')
    if (secret && (mode & 0o004) !== 0) return open('everybody', 'read')
    if ((mode & 0o020) !== 0) return open('the group', 'change')
    return []
  }
  return [
    ...judge(settings.configFile, false),
    ...settings.pins.flatMap(({ value }) => judge(value, false)),
    ...judge(settings.tokenFile?.value, true),
  ]
}

function statOf(file: string): fs.Stats | undefined {
  try {
    return fs.statSync(file, { throwIfNoEntry: false })
  } catch {
    return undefined
  }
}

/** The store as any reader finds it; what opening throws is in the store's report. */
export async function readStore(
  directory: string,
): Promise<Pick<Evidence, 'credential' | 'pending' | 'keyOfAnother'>> {
  let store: CredentialStore
  try {
    store = await openCredentialStore(directory, { readOnly: true })
  } catch (error) {
    if (!isCertvendError(error)) throw error
    return {}
  }
  const [credential, pending] = [store.current(), store.pending()]
  const keyOfAnother =
    !credential && pending?.state === 'requested'
      ? isKeyOfAnother(directory, new Set([pending.generation]), pending.privateKey.publicKey)
      : false
  return {
    ...(credential ? { credential } : {}),
    ...(pending ? { pending } : {}),
    keyOfAnother,
  }
}

/** A certificate lies in use beside a key that is whole, and is for another. */
function isKeyOfAnother(
  directory: string,
  generations: ReadonlySet<number>,
  publicKey: NonNullable<X509Certificate['publicKey']>,
): boolean {
  try {
    const current = path.join(directory, 'current')
    if (!generations.has(Number(path.basename(fs.readlinkSync(current))))) return false
    const file = path.join(current, 'certificate.pem')
    const { text } = readPlainFile('the certificate', { value: file, from: file })
    return !new X509Certificate(text).publicKey.equals(publicKey)
  } catch {
    return false
  }
}

/** What may still be written in `directory`, or where it would be made. */
export function readSpace(directory: string): Space | undefined {
  let at = path.resolve(directory)
  while (!statOf(at)?.isDirectory() && path.dirname(at) !== at) at = path.dirname(at)
  try {
    const { bavail, bsize, files, ffree } = fs.statfsSync(at)
    const owner = fs.statSync(at).uid
    const ours = owner === process.getuid?.()
    return {
      at,
      bytes: Number(bavail) * Number(bsize),
      ...(files > 0 ? { inodes: Number(ffree) } : {}),
      ...(ours || process.getuid?.() !== 0 ? { writable: mayWrite(at) } : {}),
    }
  } catch {
    return undefined
  }
}

function mayWrite(directory: string): boolean {
  try {
    fs.accessSync(directory, fs.constants.W_OK | fs.constants.X_OK)
    return true
  } catch (error) {
    // A read-only file system is told of by its mount.
    return (error as NodeJS.ErrnoException).code === 'EROFS'
  }
}
