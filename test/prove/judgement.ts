/**
 * Opens a state with the real store and says what it holds, in a word that can be compared:
 * `nothing`, `requested K1`, `current C1`, `current C1, issued C2` and the like.
 */
import { createHash, createPrivateKey, createPublicKey, type KeyObject } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import {
  type Credential,
  type CredentialStore,
  type Issued,
  isCertvendError,
  openCredentialStore,
} from '@certvend/client'
import { issuedFor } from './certificates.ts'
import { type Operation, record, sentence } from './recording.ts'
import { captureTree, materialise, type Tree, treeDigest } from './tree.ts'

/** Where the state directory lies on a proved disk; both parts are made by the store. */
export const stateDirectory = 'device/state'

const keyDigest = (key: KeyObject): string =>
  createHash('sha256')
    .update(key.export({ type: 'spki', format: 'der' }))
    .digest('hex')

/** The keys and credentials that took part, by their names. */
export interface Cast {
  /** Names a key that `begin` returned, by default K and the next number; it keeps its first name. */
  nameKey(key: KeyObject, name?: string): string
  /** A vending server's answer for a named key; always the same. */
  answer(key: KeyObject): Issued
  describe(store: CredentialStore): string
  /** What a program sees that resolves `current` and reads there: a credential, nothing, or worse. */
  read(root: string): string
}

/** @param known keys named before, elsewhere; the next is K and one more. */
export function createCast(known = 0): Cast {
  const names = new Map<string, string>()
  const answers = new Map<string, Issued>()
  const keyName = (key: KeyObject): string => names.get(keyDigest(key)) ?? 'unknown key'
  const answerFor = (key: KeyObject): Issued => {
    const digest = keyDigest(key)
    const answer = answers.get(digest) ?? issuedFor(key, Number(keyName(key).slice(1)))
    answers.set(digest, answer)
    return answer
  }
  const whole = (credential: Credential): string => {
    const { publicKey } = credential.privateKey
    const name = keyName(publicKey)
    const answer = answers.get(keyDigest(publicKey))
    const same =
      answer !== undefined &&
      answer.certificateChain === credential.certificateChain &&
      answer.certificateId === credential.certificateId &&
      answer.endpoint.trustAnchors.join('') === credential.endpoint.trustAnchors.join('') &&
      answer.issuedAt.getTime() === credential.issuedAt.getTime() &&
      answer.thingName === credential.thingName
    return same ? `C${name.slice(1)}` : `mixed pair with ${name}`
  }
  return {
    nameKey(key, name = `K${known + names.size + 1}`) {
      const digest = keyDigest(key)
      if (!names.has(digest)) names.set(digest, name)
      return keyName(key)
    },
    answer: answerFor,
    describe(store) {
      const current = store.current()
      const pending = store.pending()
      const parts = current ? [`current ${whole(current)}`] : []
      if (pending?.state === 'issued') parts.push(`issued ${whole(pending.credential)}`)
      if (pending?.state === 'requested')
        parts.push(
          `requested ${keyName(pending.privateKey.publicKey)}${pending.request ? ` sent ${pending.request.attempts}` : ''}`,
        )
      return parts.join(', ') || 'nothing'
    },
    read(root) {
      try {
        const directory = fs.realpathSync(path.join(root, stateDirectory, 'current'))
        const text = (name: string): string => fs.readFileSync(path.join(directory, name), 'utf8')
        const key = createPublicKey(createPrivateKey(text('private-key.pem')))
        const answer = answers.get(keyDigest(key))
        return answer?.certificateChain === text('certificate.pem') &&
          answer.endpoint.trustAnchors.join('') === text('trust-anchors.pem')
          ? `current C${keyName(key).slice(1)}`
          : 'a mixed pair'
      } catch (error) {
        const at = path.join(root, stateDirectory, 'current')
        const absent = fs.lstatSync(at, { throwIfNoEntry: false }) === undefined
        return absent
          ? 'nothing'
          : `a damaged pair (${(error as NodeJS.ErrnoException).code ?? 'unreadable'})`
      }
    },
  }
}

/** What opening a state showed. */
export interface Outcome {
  /** The state: the one asked about, or the first one opened that is equal to it. */
  readonly tree: Tree
  /** What the store holds, or the error that opening it threw. */
  readonly situation: string
  /** What a plain reader saw before anything was mended. */
  readonly reader: string
  /** What must never be, found nevertheless. */
  readonly faults: readonly string[]
  /** What opening did to the disk. */
  readonly mending: readonly Operation[]
}

function openness(tree: Tree): string[] {
  return [...tree].flatMap(([name, entry]) =>
    entry.kind !== 'link' && (entry.mode & 0o077) !== 0
      ? [`${name} is open to group or others (${entry.mode.toString(8)})`]
      : [],
  )
}

/** What lies in a state directory without being part of a current or pending credential. */
function litter(tree: Tree): string[] {
  const target = (link: string): string => {
    const entry = tree.get(path.join(stateDirectory, link))
    return entry?.kind === 'link' ? path.join(stateDirectory, entry.target) : '-'
  }
  const live = [target('current'), target('pending')]
  const places = ['', 'lock', 'current', 'pending', 'generations'].map((one) =>
    path.join(stateDirectory, one),
  )
  const files = /\/(private-key|certificate|trust-anchors)\.pem$|\/(credential|request)\.json$/
  return [...tree.keys()].filter(
    (name) =>
      !places.includes(name) &&
      !stateDirectory.startsWith(name) &&
      !live.includes(name) &&
      !(live.includes(path.dirname(name)) && files.test(name)),
  )
}

/** Runs the store in the state below `root` to the end of the matter: a credential in use, alone. */
export function finish(store: CredentialStore, cast: Cast): void {
  if (!store.current() || store.pending()?.state === 'requested') {
    const { publicKey } = store.begin().privateKey
    cast.nameKey(publicKey)
    store.issue(cast.answer(publicKey))
  }
  if (store.pending()) store.promote()
}

export interface Judge {
  /** Opens `tree`, materialised, or remembers how an equal one opened. */
  judge(tree: Tree): Promise<Outcome>
  /** Distinct states opened so far. */
  readonly opened: number
}

/** Judges states in fresh directories below `workspace`. */
export function createJudge(workspace: string, cast: Cast): Judge {
  const known = new Map<string, Outcome>()
  const finished = new Set<string>()
  let serial = 0

  async function judge(tree: Tree): Promise<Outcome> {
    const digest = treeDigest(tree)
    const before = known.get(digest)
    if (before) return before
    const root = path.join(workspace, String(serial++))
    fs.mkdirSync(root, { mode: 0o700 })
    materialise(tree, root)
    const outcome = await open(tree, root)
    fs.rmSync(root, { recursive: true })
    known.set(digest, outcome)
    return outcome
  }

  async function open(tree: Tree, root: string): Promise<Outcome> {
    const faults = openness(tree)
    const reader = cast.read(root)
    const opening = (): { result: Promise<CredentialStore>; operations: Operation[] } =>
      record(root, () => openCredentialStore(path.join(root, stateDirectory)))
    const first = opening()
    let store: CredentialStore
    try {
      store = await first.result
    } catch (error) {
      const situation = isCertvendError(error) ? error.code : String(error)
      return { tree, situation, reader, faults, mending: first.operations }
    }
    const situation = cast.describe(store)
    store.close()
    const after = captureTree(root)
    faults.push(...openness(after), ...litter(after).map((name) => `${name} was left behind`))
    const second = opening()
    const again = await second.result
    if (cast.describe(again) !== situation || again.mended.length > 0)
      faults.push(`opened again it held: ${cast.describe(again)}`)
    if (second.operations.length > 0)
      faults.push(`opened again it mended: ${second.operations.map(sentence).join('; ')}`)
    if (!finished.has(treeDigest(after))) {
      finished.add(treeDigest(after))
      faults.push(...onward(again))
    }
    again.close()
    return { tree, situation, reader, faults, mending: first.operations }
  }

  function onward(store: CredentialStore): string[] {
    const later = createCast() // what comes now is not of the life that is judged
    try {
      finish(store, later)
      const { publicKey } = store.begin().privateKey
      later.nameKey(publicKey)
      const issued = store.issue(later.answer(publicKey))
      const promoted = store.promote()
      return promoted.generation === issued.generation ? [] : ['promoted another credential']
    } catch (error) {
      return [`could not go on from here: ${(error as Error).message}`]
    }
  }

  return {
    judge,
    get opened() {
      return known.size
    },
  }
}
