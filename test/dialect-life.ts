/**
 * One life of a device in an old dialect: boots, lost answers, requests that are still at work when the
 * next is made, kills between any two operations on the disk, a clock that was set back.
 *
 * The store is a real one; the vending machine is the reference over its little AWS account. Time is
 * made up, and passes when the device waits or somebody reboots it.
 */
import fs from 'node:fs'
import path from 'node:path'
import {
  CertvendError,
  type Claim,
  type Clock,
  type CredentialStore,
  enroll,
  ensureCredential,
  openCredentialStore,
  type Send,
  type SendRequest,
  type SendResponse,
} from '@certvend/client'
import { machines, type OldDialect } from './contracts/machines.ts'
import { deviceCa, enter, unreachable } from './contracts/reference.ts'
import { makeWorld, type World } from './contracts/world.ts'
import { sendTo } from './vending-machine.ts'

/** What becomes of one request. */
export type Fate =
  | { readonly kind: 'answered' }
  | { readonly kind: 'unsent' }
  | { readonly kind: 'lost on the way there' }
  | { readonly kind: 'lost on the way back' }
  /** The connection breaks, and the request is worked on that much later: 29 s is API Gateway's limit. */
  | { readonly kind: 'late'; readonly byMs: number }
  /** Only this part of the answer arrives, as if it were all. */
  | { readonly kind: 'cut'; readonly at: number }
  | { readonly kind: 'failing'; readonly step: string }
  /** Killed once the request was written down, before its first byte. */
  | { readonly kind: 'killed before sending' }
  /** Killed after so many operations on the disk, counted from the answer. */
  | { readonly kind: 'killed'; readonly after: number }

/** What happens between two boots. */
export interface Boot {
  /** One for each request, in turn; afterwards every request is answered. */
  readonly fates: readonly Fate[]
  /** How long it was off, in milliseconds. */
  readonly offMs: number
  /** Starts with a clock of 1970, as a board without a battery does. */
  readonly clockLost: boolean
}

const mutators = [
  'openSync',
  'writeSync',
  'writeFileSync',
  'fsyncSync',
  'renameSync',
  'symlinkSync',
  'unlinkSync',
  'rmSync',
  'rmdirSync',
  'mkdirSync',
  'chmodSync',
  'fchmodSync',
] as const

/** Lets this process's hand on the disk be stopped for good, as by SIGKILL, and revived by a reboot. */
function makeExecutioner() {
  const original = Object.fromEntries(mutators.map((name) => [name, fs[name]]))
  let left = Number.POSITIVE_INFINITY
  for (const name of mutators)
    Object.assign(fs, {
      [name]: (...parameters: unknown[]) => {
        if (left-- > 0) return (original[name] as (...all: unknown[]) => unknown)(...parameters)
        left = 0
        throw Object.assign(new Error('killed'), { code: 'EIO' })
      },
    })
  return {
    /** From the so-manieth operation on, nothing reaches the disk any more: no cleaning up either. */
    killAfter: (operations: number) => {
      left = operations
    },
    get dead() {
      return left <= 0
    },
    revive: () => {
      left = Number.POSITIVE_INFINITY
    },
    retire: () => void Object.assign(fs, original),
  }
}

export interface Life {
  readonly world: World
  readonly claim: Claim
  /** Boots the device and lets it ask until it has a credential, gives up, or is killed. */
  boot(boot: Boot, options?: { again?: boolean }): Promise<CertvendError | undefined>
  /** Asks once more although a credential is held, as a careless program would. */
  pester(): Promise<CertvendError | undefined>
  /** Lets every request that is still at work come to its end. */
  settle(): Promise<void>
  /** Looks into the store. */
  store(): Promise<CredentialStore>
  end(): void
}

export function beginLife(dialect: OldDialect, directory: string): Life {
  const world = makeWorld({ deviceCa, keys: 'EC' })
  const claim = enter(world, dialect)
  const executioner = makeExecutioner()
  const reach = sendTo(machines[dialect](world))
  const limits = { deadlineMs: 1000, replyBytes: 100_000 }
  const lost = (): CertvendError => new CertvendError('ERR_REPLY_LOST', 'the connection broke')
  let trueMs = Date.UTC(2027, 2, 1)
  let offsetMs = 0
  let late: { readonly at: number; readonly request: SendRequest }[] = []

  const pass = async (ms: number): Promise<void> => {
    const until = trueMs + ms
    const due = late.filter(({ at }) => at <= until).sort((a, b) => a.at - b.at)
    late = late.filter(({ at }) => at > until)
    for (const { request } of due) await reach(request, limits)
    trueMs = until
  }
  const clock: Clock = {
    now: () => new Date(trueMs + offsetMs),
    async wait(ms) {
      if (executioner.dead) throw new Error('killed')
      await pass(ms)
    },
  }

  const suffering = (fates: Fate[]): Send => {
    return async (request, { beforeSend }) => {
      const fate = fates.shift() ?? { kind: 'answered' }
      await pass(50)
      if (fate.kind === 'unsent') throw new CertvendError('ERR_NETWORK', 'no route')
      beforeSend?.()
      const answer = async (): Promise<SendResponse> => {
        const response = await reach(request, limits)
        await pass(500)
        return response
      }
      switch (fate.kind) {
        case 'lost on the way there':
          throw lost()
        case 'killed before sending':
          executioner.killAfter(0)
          throw lost()
        case 'lost on the way back':
          await answer()
          throw lost()
        case 'late':
          late.push({ at: trueMs + fate.byMs, request })
          throw lost()
        case 'cut': {
          const response = await answer()
          return { ...response, body: response.body.slice(0, fate.at) }
        }
        case 'failing':
          world.failBefore = fate.step
          return answer().finally(() => delete world.failBefore)
        case 'killed': {
          const response = await answer()
          executioner.killAfter(fate.after)
          return response
        }
        default:
          return answer()
      }
    }
  }

  const store = (): Promise<CredentialStore> => openCredentialStore(path.join(directory, 'state'))
  const failing = async (action: Promise<unknown>): Promise<CertvendError | undefined> => {
    try {
      await action
      return undefined
    } catch (error) {
      if (executioner.dead) return undefined
      if (error instanceof CertvendError) return error
      throw error
    }
  }

  return {
    world,
    claim,
    async boot({ fates, offMs, clockLost }, { again = false } = {}) {
      await pass(offMs)
      offsetMs = clockLost ? Date.UTC(1970, 0, 1) - trueMs : 0
      executioner.revive()
      const opened = await store()
      try {
        const send = suffering([...fates])
        const options = { clock, send, again, random: () => 0.5 }
        return await failing(ensureCredential(opened, unreachable(dialect), claim, options))
      } finally {
        executioner.revive()
        opened.close()
      }
    },
    async pester() {
      const opened = await store()
      try {
        const send = suffering([])
        return await failing(enroll(opened, unreachable(dialect), claim, { clock, send }))
      } finally {
        opened.close()
      }
    },
    settle: () => pass(60_000),
    store,
    end: executioner.retire,
  }
}
