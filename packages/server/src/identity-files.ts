/**
 * The server's certificate chain and private key in files of its operator's: read, judged, and read
 * again when they change, so that a renewed certificate is shown without a restart.
 *
 * The files are looked at, not watched: a tool may replace a file, a link, or the whole directory.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { stat } from 'node:fs/promises'
import { second } from './clock.ts'
import { failure } from './failure.ts'
import { readNamed } from './named-file.ts'

export interface IdentityFiles {
  /** Chain, PEM, end entity first. */
  readonly cert: string
  /** Private key, PEM, without a password. */
  readonly key: string
}

export interface Identity {
  readonly cert: string
  readonly key: string
}

/** Reads and judges both files. @throws Failure */
export async function readIdentity(files: IdentityFiles): Promise<Identity> {
  const cert = await readNamed(files.cert)
  const key = await readNamed(files.key)
  let matches: boolean
  try {
    matches = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
  } catch {
    throw failure(
      2,
      `${files.cert} or ${files.key} is not PEM`,
      'both are PEM, the key without a password',
    )
  }
  if (!matches)
    throw failure(
      2,
      `the key in ${files.key} does not belong to the first certificate in ${files.cert}`,
      'the end entity comes first in the chain',
    )
  return { cert, key }
}

/** How a file looks from outside. */
const look = async (path: string): Promise<string> => {
  const { ino, size, mtimeMs } = await stat(path)
  return `${ino} ${size} ${mtimeMs}`
}

/**
 * Looks at the files every `everyMs` (10 seconds by default) and hands over what they hold when it
 * changed and is whole. A certificate without its key, in between, is told once and waited out.
 *
 * @returns what ends it
 */
export function followIdentity(
  files: IdentityFiles,
  first: Identity,
  told: {
    readonly changed: (identity: Identity) => void
    readonly failed: (error: Error) => void
  },
  everyMs: number = 10 * second,
): () => void {
  let shown = first
  let looked = ''
  let isLooking = false
  const again = async () => {
    if (isLooking) return
    isLooking = true
    try {
      const looks = `${await look(files.cert)} ${await look(files.key)}`
      if (looks === looked) return
      const identity = await readIdentity(files)
      looked = looks
      if (identity.cert === shown.cert && identity.key === shown.key) return
      told.changed(identity)
      shown = identity
      failing = ''
    } catch (error) {
      const { message } = error as Error
      if (message !== failing) told.failed(error as Error)
      failing = message
    } finally {
      isLooking = false
    }
  }
  let failing = ''
  const timer = setInterval(() => void again(), everyMs)
  timer.unref()
  return () => clearInterval(timer)
}
