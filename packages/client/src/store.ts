/**
 * The credential store: generations on disk, atomic and durable. The only writer of credentials.
 *
 *     <state directory>/current -> generations/0000000002
 *                       pending -> generations/0000000003   while one is being made or proven
 *                       generations/<number>/               see generation.ts
 *                       lock
 *
 * The disk is the state machine: a crash at any point leaves the old credential or the new one,
 * whole, and once a call here has returned, the new. Opening judges what is there and heals it.
 * `docs/store.md` has the layout, the promise and the proof.
 */
import path from 'node:path'
import type { Credential, Issued, Pending, RequestRecord } from './credential.ts'
import { defaultStateDirectory, judgeDirectory } from './directory.ts'
import {
  createFile,
  type Lock,
  makeDirectory,
  probeLinks,
  probeSpace,
  remove,
  removeAll,
  replaceFile,
  replaceLink,
  syncDirectory,
  syncFiles,
  syncPath,
  takeLock,
} from './durable.ts'
import { eraseContents } from './erase.ts'
import { CertvendError } from './errors.ts'
import { fileNames, issuedFiles, keyFileOf, readKeyFile, requestFile } from './generation.ts'
import {
  type FileKey,
  generateKey,
  isPkcs11Key,
  type KeyAlgorithm,
  type Pkcs11Key,
  type StoredKey,
} from './key.ts'
import {
  generationName,
  type LinkName,
  type Mending,
  mendings,
  type Survey,
  survey,
} from './survey.ts'

/**
 * One state directory. Readers take no lock; the first write takes it and {@link close} frees it.
 *
 * Every writing method throws {@link CertvendError} `ERR_STORE_UNWRITABLE` or `ERR_STORE_LOCKED` and
 * then has changed nothing that a reader sees; only when its last sync fails, what {@link current} and
 * {@link pending} show then may already be the new. Look at them before calling again.
 */
export interface CredentialStore {
  /** Resolved: no link on the way. */
  readonly directory: string
  /** What opening found wrong and mended, for people; usually empty. */
  readonly mended: readonly string[]
  /** The credential in use, whole, or nothing before the first. */
  current(): Credential | undefined
  /** The credential in the making. */
  pending(): Pending | undefined
  /** Reads the directory again, as another process may have changed it. */
  reload(): void
  /** Takes the write lock now instead of at the first write. */
  lock(): void
  /**
   * Makes a key durable as `pending`, or returns the one that already is.
   *
   * @param wanted the kind of key to make, or one that lies in a token. Default: the token's key again
   *   where the credential in use has one, so that no key leaves its token unasked, else P-256.
   * @throws TypeError when another key than the wanted token's is pending; discard it first.
   */
  begin(wanted?: KeyAlgorithm | Pkcs11Key): Extract<Pending, { state: 'requested' }>
  /**
   * Remembers that a request was, or is about to be, sent with the pending key. Before one that must
   * not be repeated it also proves that the disk takes a whole credential.
   */
  recordRequest(record: RequestRecord): void
  /**
   * Completes the pending generation. The first credential becomes current, a successor waits for
   * {@link promote}.
   *
   * @param served a key that came with the certificate: the two take a generation of their own, and
   *   that of the request goes, so that no key made elsewhere is ever taken for one made here.
   */
  issue(issued: Issued, served?: FileKey): Credential
  /** Makes the issued pending credential current and removes the old one. */
  promote(): Credential
  /** Drops what is pending; never what is current. */
  discard(): void
  /** Factory reset: overwrites and removes everything, keys first of all; see `eraseStore`. */
  erase(): void
  /** Frees the lock. */
  close(): void
}

export interface StoreOptions {
  /** Judge, but neither heal nor lock nor write: for programs beside the store's owner. Default false. */
  readonly readOnly?: boolean
}

/**
 * Opens the store in `directory`, judging and healing what is there. Nothing is created until the
 * first write.
 *
 * @param directory default: `$STATE_DIRECTORY`, else env-paths' data directory.
 * @throws {CertvendError} `ERR_STORE_UNSAFE`, `ERR_STORE_UNREADABLE`, `ERR_STORE_CORRUPT`
 */
export async function openCredentialStore(
  directory?: string,
  { readOnly = false }: StoreOptions = {},
): Promise<CredentialStore> {
  const { path: root, ours } = judgeDirectory(directory ?? (await defaultStateDirectory()))
  let held: Lock | undefined
  let seen: Survey = survey(root)
  let mended: readonly string[] = []
  const settled = new Set<number>()

  const at = (...names: string[]): string => path.join(root, ...names)
  const home = (generation: number): string => at('generations', generationName(generation))

  function lock(): void {
    if (readOnly) throw new TypeError('the store was opened to read only')
    if (held) return
    settled.clear() // another process may have written since
    if (ours) makeDirectory(root)
    // Judged again: while it was missing, anybody may have made it in a directory such as /tmp.
    if (!ours || !judgeDirectory(root).ours)
      throw new CertvendError(
        'ERR_STORE_UNWRITABLE',
        `${root} belongs to another user; root reads it and never writes to it`,
        { hint: 'run this as the user that owns the state directory' },
      )
    const taken = takeLock(at('lock'))
    try {
      reload() // what was seen before the lock may have changed
      if (seen.newest === 0) {
        probeLinks(root)
        syncPath(root)
      }
    } catch (error) {
      taken.release()
      throw error
    }
    held = taken
  }

  function mend(mending: Mending): void {
    switch (mending.do) {
      case 'point':
        replaceLink(at(mending.link), `generations/${generationName(mending.generation)}`)
        break
      case 'unlink':
        remove(at(mending.link))
        break
      case 'remove':
        removeAll(at(mending.name))
    }
  }

  /**
   * Makes durable what a process before us may have written and, being killed, not synced. We see it
   * and would rely on it; a power cut could still take it away.
   */
  function settle(...generations: (number | undefined)[]): void {
    const unsure = generations.filter((one) => one !== undefined && !settled.has(one)) as number[]
    if (unsure.length === 0) return
    for (const generation of unsure) syncFiles(home(generation))
    syncDirectory(at('generations'))
    syncDirectory(root)
    for (const generation of unsure) settled.add(generation)
  }

  function mendAll(): void {
    const wanted = mendings(seen)
    if (wanted.length === 0) return
    settled.clear()
    settle(seen.current?.generation, seen.pending?.generation)
    for (const mending of wanted) {
      mend(mending)
      if (mending.do === 'point' || mending.do === 'unlink') syncDirectory(root)
    }
    mended = [...mended, ...wanted.flatMap((one) => (one.because ? [one.because] : []))]
    reload()
  }

  function heal(): void {
    if (mendings(seen).length === 0) return
    // A usable credential is not withheld because the disk cannot be tidied now.
    tidy(() => {
      lock()
      mendAll()
    })
    close()
  }

  /** Runs one write under the lock. After a failure the store is as if opened anew. */
  function write<T>(action: () => T): T {
    lock()
    mendAll()
    try {
      return action()
    } catch (error) {
      settled.clear()
      tidy(reload)
      throw error
    }
  }

  /** What need not succeed: the next write or opening does it. */
  function tidy(action: () => void): void {
    try {
      action()
    } catch (error) {
      if (!(error instanceof CertvendError)) throw error
    }
  }

  function reload(): void {
    seen = survey(root)
  }

  function close(): void {
    held?.release()
    held = undefined
  }

  function requested(): Extract<Pending, { state: 'requested' }> {
    const { pending } = seen
    if (pending?.state !== 'requested')
      throw new TypeError('nothing is requested; call begin first')
    return pending
  }

  if (!readOnly) heal()

  return {
    directory: root,
    get mended() {
      return mended
    },
    current: () => seen.current,
    pending: () => seen.pending,
    reload,
    lock,
    begin: (wanted) =>
      write(() => {
        if (seen.pending?.state === 'requested') {
          if (typeof wanted === 'object' && !isSameKey(wanted, seen.pending.privateKey))
            throw new TypeError('another key is pending; discard it first')
          settle(seen.pending.generation)
          return seen.pending
        }
        if (seen.pending)
          throw new TypeError('an issued credential waits; promote or discard it first')
        const inUse = seen.current?.privateKey
        const again = inUse && isPkcs11Key(inUse) ? inUse : undefined
        const given = wanted ?? again
        const key = keyFileOf(typeof given === 'object' ? given : generateKey(given))
        const generation = seen.newest + 1
        makeDirectory(home(generation))
        createFile(path.join(home(generation), key.name), key.text)
        syncDirectory(home(generation))
        replaceLink(at('pending'), `generations/${generationName(generation)}`)
        syncDirectory(root)
        settled.add(generation)
        reload()
        return requested()
      }),
    recordRequest: (record) =>
      write(() => {
        const { generation } = requested()
        if (record.unanswered) probeSpace(home(generation), credentialBytes)
        replaceFile(path.join(home(generation), fileNames.request), requestFile(record))
        syncDirectory(home(generation))
        reload()
      }),
    issue: (issued, served) =>
      write(() => {
        const asked = requested().generation
        const generation = served ? seen.newest + 1 : asked
        settle(asked)
        if (served) makeDirectory(home(generation))
        for (const name of [fileNames.credential, fileNames.certificate, fileNames.anchors])
          remove(path.join(home(generation), name)) // of an attempt cut short
        const key = served ? keyFileOf(served) : readKeyFile(home(generation))
        const files = issuedFiles(key, issued)
        createFile(path.join(home(generation), fileNames.certificate), files.certificate)
        createFile(path.join(home(generation), fileNames.anchors), files.anchors)
        // Late, so that what a crash leaves has no key, and is taken for nothing.
        if (served) createFile(path.join(home(generation), key.name), key.text)
        replaceFile(path.join(home(generation), fileNames.credential), files.credential)
        syncDirectory(home(generation))
        const isFirst = !seen.current
        const links: LinkName[] = [
          ...(served ? ['pending' as const] : []),
          ...(isFirst ? ['current' as const] : []),
        ]
        for (const link of links) {
          replaceLink(at(link), `generations/${generationName(generation)}`)
          syncDirectory(root)
        }
        settled.add(generation)
        tidy(() => {
          if (isFirst) remove(at('pending'))
          if (served) removeAll(home(asked))
        })
        reload()
        const stored = [
          seen.current,
          seen.pending?.state === 'issued' ? seen.pending.credential : undefined,
        ]
        const credential = stored.find((one) => one?.generation === generation)
        if (!credential)
          throw new CertvendError(
            'ERR_STORE_CORRUPT',
            `${home(generation)} does not read back as written`,
          )
        return credential
      }),
    promote: () =>
      write(() => {
        const { pending, current } = seen
        if (pending?.state !== 'issued') throw new TypeError('no issued credential waits')
        settle(pending.generation)
        replaceLink(at('current'), `generations/${generationName(pending.generation)}`)
        // Durable before the other link goes: the old certificate may be retired from here on.
        syncDirectory(root)
        tidy(() => {
          remove(at('pending'))
          if (current) removeAll(home(current.generation))
        })
        reload()
        return seen.current as Credential
      }),
    discard: () =>
      write(() => {
        const { pending } = seen
        if (!pending) return
        remove(at('pending'))
        syncDirectory(root)
        removeAll(home(pending.generation))
        syncDirectory(at('generations')) // or a power cut brings the key back
        reload()
      }),
    erase() {
      lock()
      try {
        eraseContents(root)
      } finally {
        settled.clear()
        reload()
      }
    },
    close,
  }
}

/** More than a credential takes: a key, a few certificates and anchors. */
const credentialBytes = 32 * 1024

const isSameKey = (wanted: Pkcs11Key, held: StoredKey): boolean =>
  isPkcs11Key(held) && held.uri === wanted.uri && held.publicKey.equals(wanted.publicKey)
