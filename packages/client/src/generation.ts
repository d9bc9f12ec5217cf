/**
 * One generation on disk, read and judged: broken, requested (a key) or issued (a whole credential).
 *
 * `credential.json` is written last and holds the SHA-256 of the other files and its own seal; *issued*
 * means that it is there and agrees. Reads only.
 */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import * as v from 'valibot'
import { carries, notAfter, notBefore, readCertificates } from './certificate.ts'
import type { Credential, Issued, RequestRecord } from './credential.ts'
import { shellWord } from './directory.ts'
import { CertvendError } from './errors.ts'
import { isPkcs11Key, readKey, type StoredKey } from './key.ts'
import { pkcs11KeyText, readPkcs11Key } from './pkcs11.ts'
import { seal, unseal } from './sealed.ts'

export const fileNames = {
  key: 'private-key.pem',
  /** In its place when the key is in a token: the key's name and its public half. */
  keyUri: 'private-key.uri',
  certificate: 'certificate.pem',
  anchors: 'trust-anchors.pem',
  credential: 'credential.json',
  request: 'request.json',
} as const

export type Generation =
  | { readonly state: 'issued'; readonly credential: Credential }
  | {
      readonly state: 'requested'
      readonly privateKey: StoredKey
      readonly request?: RequestRecord
    }
  | { readonly state: 'broken'; readonly reason: string }

const sha256 = (data: string): string => createHash('sha256').update(data).digest('hex')
const digest = v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/))
const instant = v.pipe(
  v.string(),
  v.isoTimestamp(),
  v.transform((text) => new Date(text)),
)

const CredentialFile = v.object({
  version: v.literal(1),
  deviceSerial: v.string(),
  thingName: v.string(),
  certificateId: digest,
  keyOrigin: v.picklist(['device', 'server']),
  issuedAt: instant,
  endpoint: v.object({ host: v.string(), port: v.number(), alpn: v.optional(v.string()) }),
  vendedBy: v.optional(
    v.object({ url: v.string(), dialect: v.string(), pins: v.array(v.string()) }),
  ),
  files: v.object({
    [fileNames.key]: v.optional(digest),
    [fileNames.keyUri]: v.optional(digest),
    [fileNames.certificate]: digest,
    [fileNames.anchors]: digest,
  }),
})

const RequestFile = v.object({
  version: v.literal(1),
  dialect: v.string(),
  urlHash: digest,
  sentAt: instant,
  attempts: v.number(),
  unanswered: v.optional(v.boolean()),
  notBefore: v.optional(instant),
})

/** The file that a key is kept in: itself, or its name. */
export interface KeyFile {
  readonly name: typeof fileNames.key | typeof fileNames.keyUri
  readonly text: string
}

export const keyFileOf = (key: StoredKey): KeyFile =>
  isPkcs11Key(key)
    ? { name: fileNames.keyUri, text: pkcs11KeyText(key) }
    : { name: fileNames.key, text: key.toPem() }

/** The text of each file of an issued generation but the key's; `credential.json` last. */
export function issuedFiles(
  key: KeyFile,
  issued: Issued,
): { certificate: string; anchors: string; credential: string } {
  const { certificateChain: certificate, endpoint, issuedAt, ...rest } = issued
  const { trustAnchors, ...address } = endpoint
  const anchors = trustAnchors.join('')
  const record = {
    version: 1,
    ...rest,
    issuedAt: issuedAt.toISOString(),
    endpoint: address,
    files: {
      [key.name]: sha256(key.text),
      [fileNames.certificate]: sha256(certificate),
      [fileNames.anchors]: sha256(anchors),
    },
  }
  return { certificate, anchors, credential: seal(record) }
}

/** The text of `request.json`. */
export const requestFile = (record: RequestRecord): string => seal({ version: 1, ...record })

const largestFile = 256 * 1024

/** The text of a file, or nothing when it is not there or not a plain file of sensible size. */
function read(directory: string, name: string): string | undefined {
  try {
    const descriptor = fs.openSync(
      path.join(directory, name),
      fs.constants.O_RDONLY | fs.constants.O_NOFOLLOW | fs.constants.O_NONBLOCK,
    )
    try {
      const found = fs.fstatSync(descriptor)
      if (!found.isFile() || found.size > largestFile) return undefined
      if (name === fileNames.key && (found.mode & 0o077) !== 0)
        throw new CertvendError(
          'ERR_STORE_UNSAFE',
          `${path.join(directory, name)} is open to group or others; mend it: chmod 600 ${shellWord(path.join(directory, name))}`,
        )
      return fs.readFileSync(descriptor, 'utf8')
    } finally {
      fs.closeSync(descriptor)
    }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ELOOP' || code === 'ENOTDIR') return undefined
    if (error instanceof CertvendError) throw error
    throw new CertvendError(
      'ERR_STORE_UNREADABLE',
      `cannot read ${path.join(directory, name)} (${code})`,
      {
        cause: error,
      },
    )
  }
}

function findKeyFile(directory: string): KeyFile | undefined {
  for (const name of [fileNames.key, fileNames.keyUri] as const) {
    const text = read(directory, name)
    if (text !== undefined) return { name, text }
  }
  return undefined
}

/**
 * The file of the private key in `directory`: what the digest in `credential.json` is of, which may
 * differ from the key as we would write it.
 */
export function readKeyFile(directory: string): KeyFile {
  const file = findKeyFile(directory)
  if (!file)
    throw new CertvendError('ERR_STORE_UNREADABLE', `the private key in ${directory} is gone`)
  return file
}

/** A record without a seal may not hold members that nobody wrote: one may be the seal, its name rotten. */
function parseFile<Entries extends v.ObjectEntries>(
  schema: v.ObjectSchema<Entries, undefined>,
  text: string | undefined,
): v.InferOutput<v.ObjectSchema<Entries, undefined>> | undefined {
  const record = text === undefined ? undefined : unseal(text)
  if (!record) return undefined
  const result = record.sealed
    ? v.safeParse(schema, record.members)
    : v.safeParse(v.strictObject(schema.entries), record.members)
  return result.success ? result.output : undefined
}

/** Reads generation `number` in `directory`. */
export function readGeneration(directory: string, number: number): Generation {
  const keyFile = findKeyFile(directory)
  if (!keyFile) return { state: 'broken', reason: 'no private key' }
  let privateKey: StoredKey
  try {
    privateKey =
      keyFile.name === fileNames.key ? readKey(keyFile.text) : readPkcs11Key(keyFile.text)
  } catch {
    return { state: 'broken', reason: 'the private key cannot be read' }
  }
  const credential = readCredential(directory, number, keyFile, privateKey)
  if (credential) return { state: 'issued', credential }
  const request = parseFile(RequestFile, read(directory, fileNames.request))
  return {
    state: 'requested',
    privateKey,
    ...(request ? { request: withoutVersion(request) } : {}),
  }
}

function withoutVersion({
  version: _,
  notBefore,
  unanswered,
  ...rest
}: v.InferOutput<typeof RequestFile>): RequestRecord {
  return { ...rest, ...(unanswered ? { unanswered } : {}), ...(notBefore ? { notBefore } : {}) }
}

function readCredential(
  directory: string,
  generation: number,
  keyFile: KeyFile,
  privateKey: StoredKey,
): Credential | undefined {
  const record = parseFile(CredentialFile, read(directory, fileNames.credential))
  const certificateChain = read(directory, fileNames.certificate)
  const anchors = read(directory, fileNames.anchors)
  if (!record || certificateChain === undefined || anchors === undefined) return undefined
  const { files, version: _, endpoint, vendedBy, ...rest } = record
  const whole =
    files[keyFile.name] === sha256(keyFile.text) &&
    files[fileNames.certificate] === sha256(certificateChain) &&
    files[fileNames.anchors] === sha256(anchors)
  if (!whole) return undefined
  const [endEntity] = readCertificates(certificateChain)
  if (!endEntity || !carries(endEntity, privateKey.publicKey)) return undefined
  const { host, port, alpn } = endpoint
  return {
    generation,
    privateKey,
    certificateChain,
    notBefore: notBefore(endEntity),
    notAfter: notAfter(endEntity),
    ...rest,
    ...(vendedBy ? { vendedBy } : {}),
    endpoint: {
      host,
      port,
      ...(alpn === undefined ? {} : { alpn }),
      trustAnchors: readCertificates(anchors).map(String),
    },
  }
}
