/**
 * Private keys in PKCS#11 tokens (a TPM, a secure element, a smart card, SoftHSM). The operator made
 * the key there and it never leaves; the store holds its name and its public half.
 *
 * Certification requests are signed by a short-lived `openssl` with the engine `pkcs11`; TLS is
 * signed in our process by the transport `@certvend/client/aws-iot`. Both read the PIN from its file:
 * it is in no argument, no environment and no message.
 */
import { spawn } from 'node:child_process'
import { createHash, createPublicKey, type KeyObject, verify } from 'node:crypto'
import { CertvendError } from './errors.ts'
import type { Digest, Pkcs11Key } from './key.ts'
import { type KeyTrouble, keyTrouble } from './key-trouble.ts'
import { type PinFile, pinFile } from './pin-file.ts'
import { engineUri, formatKeyUri, type KeyAddress, parseKeyUri } from './pkcs11-uri.ts'

/** A token that is out of order hangs rather than fails; in milliseconds. */
const longestMs = 60_000

/**
 * Opens a key in a token by its URI (RFC 7512):
 *
 *     pkcs11:token=TOKEN;object=KEY?module-path=/usr/lib/MODULE.so&pin-source=file:/etc/certvend/pin
 *
 * @throws {CertvendError} `ERR_KEY_UNAVAILABLE`; TypeError for a URI of another form or one that
 *   holds a PIN; or the signal's reason
 */
export async function openPkcs11Key(
  uri: string,
  { signal }: { readonly signal?: AbortSignal } = {},
): Promise<Pkcs11Key> {
  const address = parseKeyUri(uri)
  const pin = pinFile(address.pinFile)
  const spki = await openssl(
    address,
    pin,
    ['pkey', '-inform', 'engine', '-in', engineUri(address), '-pubout', '-outform', 'DER'],
    { signal },
  )
  return keyAt(address, pin, createPublicKey({ key: spki, format: 'der', type: 'spki' }))
}

/**
 * Reads what {@link pkcs11KeyText} wrote. Asks no token.
 *
 * @throws TypeError when it is something else.
 */
export function readPkcs11Key(text: string): Pkcs11Key {
  const [uri = '', ...spki] = text.split('\n')
  const address = parseKeyUri(uri)
  return keyAt(address, pinFile(address.pinFile), createPublicKey(spki.join('\n')))
}

/** A key's name and its public half, for the store; nothing in it is secret. */
export const pkcs11KeyText = ({ uri, publicKey }: Pkcs11Key): string =>
  `${uri}\n${publicKey.export({ type: 'spki', format: 'pem' })}`

function keyAt(address: KeyAddress, pin: PinFile, publicKey: KeyObject): Pkcs11Key {
  return {
    uri: formatKeyUri(address),
    publicKey,
    pin,
    sign: (data, digest) => sign(address, pin, { publicKey, data, digest }),
    toPem() {
      throw new TypeError(
        "the key is in a PKCS#11 token, which Node's TLS cannot use: import { openSession } from '@certvend/client/aws-iot' and pass it as `transport`",
      )
    },
  }
}

async function sign(
  address: KeyAddress,
  pin: PinFile,
  { publicKey, data, digest }: { publicKey: KeyObject; data: Uint8Array; digest: Digest },
): Promise<Uint8Array> {
  if (digest === null) throw new TypeError('a key in a token must be EC or RSA')
  const signature = await openssl(
    address,
    pin,
    ['pkeyutl', '-sign', '-keyform', 'engine', '-inkey', engineUri(address)].concat(
      '-pkeyopt',
      `digest:${digest}`,
    ),
    { input: createHash(digest).update(data).digest() },
  )
  if (!verify(digest, data, publicKey, signature)) throw keyTrouble('other-key', address)
  return signature
}

/** The engine crashes after an error; without a core file, which would hold the PIN. */
const script = 'ulimit -c 0; export PKCS11_MODULE_PATH="$1" LC_ALL=C; shift; exec openssl "$@"'

async function openssl(
  address: KeyAddress,
  pin: PinFile,
  [command = '', ...options]: readonly string[],
  { input, signal }: { input?: Uint8Array; signal?: AbortSignal | undefined },
): Promise<Buffer> {
  signal?.throwIfAborted()
  pin.read() // judged, so that no try is spent on a file that cannot be right
  const child = spawn(
    'sh',
    ['-c', script, 'sh', address.module, command, '-engine', 'pkcs11', ...options],
    { timeout: longestMs, ...(signal ? { signal } : {}) },
  )
  child.stdin.on('error', () => {}) // it may end without having read
  child.stdin.end(input)
  const ended = new Promise<number | null>((resolve) => {
    child.once('error', () => resolve(null))
    child.once('close', resolve)
  })
  const [output, complaint, status] = await Promise.all([
    readAll(child.stdout),
    readAll(child.stderr),
    ended,
  ])
  if (status === 0 && output.length > 0) return output
  signal?.throwIfAborted()
  const words = complaint.toString()
  const trouble = diagnose(words)
  if (trouble === 'wrong-pin' || trouble === 'locked') pin.refuse()
  if (trouble) throw keyTrouble(trouble, address)
  const firstLine = words.split('\n').find((line) => !/^Engine .* set/.test(line)) ?? ''
  throw new CertvendError(
    'ERR_KEY_UNAVAILABLE',
    `openssl cannot use "${address.object}" in the token "${address.token}": ${firstLine.slice(0, 200)}`,
  )
}

async function readAll(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const parts: Buffer[] = []
  for await (const part of stream) parts.push(part)
  return Buffer.concat(parts)
}

/** What openssl's complaint means, by the words of its engine (libp11). */
function diagnose(complaint: string): KeyTrouble | undefined {
  if (/PIN (incorrect|invalid|len range)/i.test(complaint)) return 'wrong-pin'
  if (/PIN locked/i.test(complaint)) return 'locked'
  if (/Invalid engine|no such engine/.test(complaint)) return 'no-engine'
  if (/Unable to load (PKCS#11 )?module/.test(complaint)) return 'no-module'
  if (/No matching initialized token|No such token/i.test(complaint)) return 'no-token'
  if (/object not found|private key was not found/i.test(complaint)) return 'no-key'
  if (complaint === '' || /openssl: not found/.test(complaint)) return 'no-openssl'
  return undefined
}
