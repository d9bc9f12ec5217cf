/**
 * Watches one life and says what must never be. It believes its own reading of the disk and the
 * server's books, not the store.
 *
 * 1. A boot ends with a usable credential, or says precisely what a person must do.
 * 2. No key is asked for beside another, unless that one was refused; so certificates made are at
 *    most one, and one more for each claim armed again, key refused and successor wanted.
 * 3. Nothing usable is destroyed.
 * 4. No request is made that a stored credential makes unnecessary, or with a key that a power cut
 *    could take.
 * 5. No request comes before its time, also across restarts.
 */
import { createPrivateKey, createPublicKey, X509Certificate } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import type { Ending } from './device.ts'
import type { Act, Boot } from './happenings.ts'
import { type Bond, digestOf, requestedKey, type World } from './world.ts'

/** The device's time, and how often it has waited in this boot. */
export interface Instant {
  readonly now: number
  readonly waits: number
}

interface Held {
  readonly key: string
  /** Of a whole credential. */
  readonly certificateId?: string
}

interface OnDisk {
  readonly current?: Held
  readonly pending?: Held
  readonly keys: ReadonlySet<string>
}

export interface Witness {
  readonly violations: string[]
  bootBegins(boot: Boot): void
  asked(csr: string, act: Act, at: Instant): void
  answered(bond: Bond, at: Instant): void
  /** The door was tried. */
  tried(certificateId: string, admitted: boolean): void
  bootEnds(ending: Ending, at: Instant): void
}

function text(...names: string[]): string | undefined {
  try {
    return fs.readFileSync(path.join(...names), 'utf8')
  } catch {
    return undefined
  }
}

/** Public keys by the text of the private key, each read once. */
type Keyring = Map<string, Buffer>

function readHeld(directory: string, ring: Keyring): Held | undefined {
  const pem = text(directory, 'private-key.pem')
  if (!pem) return undefined
  try {
    const spki =
      ring.get(pem) ??
      createPublicKey(createPrivateKey(pem)).export({ type: 'spki', format: 'der' })
    ring.set(pem, spki)
    const key = digestOf(spki)
    const certificate = text(directory, 'certificate.pem')
    if (!certificate || !text(directory, 'credential.json')) return { key }
    const { publicKey, fingerprint256 } = new X509Certificate(certificate)
    const whole = publicKey.export({ type: 'spki', format: 'der' }).equals(spki)
    return whole
      ? { key, certificateId: fingerprint256.replaceAll(':', '').toLowerCase() }
      : { key }
  } catch {
    return undefined // cut short
  }
}

/** What a plain reader finds in a state directory. */
function readDisk(directory: string, ring: Keyring): OnDisk {
  const follow = (link: string): Held | undefined => {
    try {
      return readHeld(path.join(directory, fs.readlinkSync(path.join(directory, link))), ring)
    } catch {
      return undefined
    }
  }
  const generations = path.join(directory, 'generations')
  const keys = new Set<string>()
  for (const name of fs.existsSync(generations) ? fs.readdirSync(generations) : []) {
    const held = readHeld(path.join(generations, name), ring)
    if (held) keys.add(held.key)
  }
  const current = follow('current')
  const pending = follow('pending')
  return { ...(current ? { current } : {}), ...(pending ? { pending } : {}), keys }
}

const hour = 60 * 60_000
const pace = { baseMs: 1000, capMs: 5 * 60_000 }

export function createWitness(world: World, directory: string): Witness {
  const violations: string[] = []
  const ring: Keyring = new Map()
  let boot: Boot | undefined
  let seen = readDisk(directory, ring)
  /** Keys asked for, by the credential that was in use meanwhile. */
  const asked = new Map<string, Set<string>>()
  const refused = new Set<string>()
  const turnedAway = new Set<string>()
  const proven = new Set<string>()
  const superseded = new Set<string>()
  let lastAct: Act | undefined
  let requests = 0
  let last: { key: string; at: Instant; bond: Bond } | undefined
  let appointment: { key: string; notBefore: number } | undefined

  const wrong = (text: string): void => void violations.push(text)

  const usable = ({ current, pending }: OnDisk): string[] =>
    [current, pending].flatMap((held) =>
      held?.certificateId && world.isActive(held.certificateId) ? [held.certificateId] : [],
    )

  /** Compares the disk with what it was. */
  function look(): OnDisk {
    const found = readDisk(directory, ring)
    const { current: old } = seen
    if (old && old.key !== found.current?.key && proven.has(found.current?.certificateId ?? ''))
      superseded.add(old.key)
    if (usable(seen).length > 0 && usable(found).length === 0)
      wrong('3: the last usable credential was destroyed')
    // A key that no link names and nobody asked for was left by a kill, and may go.
    const linked = [seen.current, seen.pending].flatMap((held) => (held ? [held.key] : []))
    for (const key of new Set([...linked, ...[...asked.values()].flatMap((keys) => [...keys])])) {
      if (!seen.keys.has(key)) continue
      if (!found.keys.has(key) && ![refused, turnedAway, superseded].some((set) => set.has(key)))
        wrong(`3: a key was destroyed${world.hasCertified(key) ? ' that has a certificate' : ''}`)
    }
    if (seen.current && !found.current) wrong('3: there was a credential in use, and is none')
    seen = found
    return found
  }

  /** An appointment binds later boots once the device has written it down: it waits after that. */
  function settleAppointment(at: Instant): void {
    const notBefore = last?.bond.notBefore
    if (!last || notBefore === undefined || notBefore - last.at.now < hour + 1000) return
    if (boot?.clockless) appointment = undefined
    else if (at.waits > last.at.waits) appointment = { key: last.key, notBefore }
  }

  function judgePace(key: string, at: Instant, first: boolean): void {
    settleAppointment(at)
    if (boot?.clockless) return
    if (appointment?.key === key && at.now < appointment.notBefore)
      wrong(`5: asked ${appointment.notBefore - at.now} ms before the time agreed before a restart`)
    if (!last) return
    const { notBefore = 0 } = last.bond
    if (at.now < notBefore) wrong(`5: asked ${notBefore - at.now} ms before Retry-After`)
    const least = 0.5 * Math.min(pace.capMs, pace.baseMs * 2 ** (requests - 1))
    // Half of the window, as the device draws one half each time.
    if (first && notBefore <= last.at.now && at.now - last.at.now < least)
      wrong(`5: asked after ${at.now - last.at.now} ms, not ${least}`)
  }

  return {
    violations,
    bootBegins(next) {
      boot = next
      requests = 0
      last = undefined
    },
    asked(csr, act, at) {
      const disk = look()
      const key = digestOf(requestedKey(csr))
      lastAct = act
      if (disk.pending?.key !== key) wrong('4: the key of a request is not on disk as pending')
      if (disk.pending?.certificateId) wrong('4: asked although an issued successor waits')
      if (disk.current?.certificateId && !boot?.again)
        wrong('4: asked although it has a credential')
      const phase = disk.current?.certificateId ?? 'none'
      const keys = asked.get(phase) ?? new Set()
      for (const other of keys)
        if (other !== key && !refused.has(other) && !turnedAway.has(other))
          wrong('2: asked for another key beside one that was not refused')
      asked.set(phase, keys.add(key))
      judgePace(key, at, !disk.current)
      requests++
      last = { key, at, bond: {} }
    },
    answered(bond, at) {
      if (bond.refusedKey) refused.add(bond.refusedKey)
      if (last) last = { ...last, at: { now: last.at.now, waits: at.waits }, bond }
      const successors = [...asked.values()].reduce((sum, keys) => sum + keys.size, 0)
      if (world.made > world.claims + successors - 1)
        wrong(`2: ${world.made} certificates for ${successors} keys and ${world.claims} claims`)
    },
    tried(certificateId, admitted) {
      if (admitted) proven.add(certificateId)
      const { pending } = readDisk(directory, ring)
      if (!admitted && pending?.certificateId === certificateId) turnedAway.add(pending.key)
    },
    bootEnds(ending, at) {
      settleAppointment(at)
      const disk = look()
      if (ending.as === 'online' && disk.current?.certificateId !== ending.certificateId)
        wrong('1: reported a credential that is not the one in use on disk')
      if (ending.as === 'turned away' && world.isActive(ending.certificateId))
        wrong('1: was turned away with an active certificate')
      if (ending.as !== 'told') return
      const { code, hint, remedy } = ending
      const key = disk.pending?.key ?? ''
      const isSo =
        (code === 'ERR_CLAIM_SPENT' && world.isSpentOn(key)) ||
        (code === 'ERR_CLAIM_REFUSED' && (world.disabled || world.isRevoked(key))) ||
        (code === 'ERR_CERTIFICATE_MISMATCH' && lastAct?.do === 'cheat')
      if (!isSo) wrong(`1: said ${code}, which is not so`)
      if (remedy !== 'operator' || hint === '') wrong(`1: ${code} does not say what to do`)
    },
  }
}
