/**
 * A device that can die at every change it makes to the disk, and at every moment it waits for others.
 *
 * The methods of `node:fs` that change a disk are replaced while a device lives; in its own process
 * as in this one. What dies here writes no more: a write that is cut off leaves its first half.
 */
import fs from 'node:fs'
import type { Kill } from './happenings.ts'

/** What a device within this process dies of. */
export class Killed extends Error {
  override readonly name = 'Killed'
}

export interface Mortal {
  /** Dies here if this is the moment, or if it is dead already. */
  reach(at: Kill['at']): void
  /** Dies, whatever the moment. */
  end(): void
  readonly dead: boolean
  /** Gives `node:fs` back, and closes what the dead left open, as a kernel does. */
  bury(): void
}

type Method = (...parameters: unknown[]) => unknown

const changes = [
  'chmodSync',
  'fchmodSync',
  'fchownSync',
  'fsyncSync',
  'ftruncateSync',
  'linkSync',
  'mkdirSync',
  'renameSync',
  'rmSync',
  'rmdirSync',
  'symlinkSync',
  'unlinkSync',
  'writeSync',
] as const

/** @param die ends this process; default: throws {@link Killed}, now and at each later change. */
export function createMortal(
  kill: Kill | undefined,
  die: () => void = () => {
    throw new Killed()
  },
): Mortal {
  const methods = fs as unknown as Record<string, Method>
  const original = Object.fromEntries(
    [...changes, 'closeSync', 'openSync', 'writeFileSync'].map((name) => [name, methods[name]]),
  )
  const open = new Set<number>()
  const reached = new Map<Kill['at'], number>()
  let dead = false

  const isTheMoment = (at: Kill['at']): boolean => {
    const number = (reached.get(at) ?? 0) + 1
    reached.set(at, number)
    return kill?.at === at && kill.number === number
  }
  function end(): void {
    dead = true
    die()
  }
  function reach(at: Kill['at']): void {
    if (dead || isTheMoment(at)) end()
  }

  for (const name of changes)
    methods[name] = (...parameters) => {
      reach('operation')
      return original[name]?.(...parameters)
    }
  methods.writeFileSync = (...parameters) => {
    if (!dead && isTheMoment('operation')) {
      const text = String(parameters[1])
      original.writeFileSync?.(parameters[0], text.slice(0, text.length / 2))
      end()
    }
    if (dead) end()
    return original.writeFileSync?.(...parameters)
  }
  methods.openSync = (...parameters) => {
    const [, flags = 'r'] = parameters as [string, string | number | undefined]
    const { O_CREAT } = fs.constants
    if (typeof flags === 'string' ? /[wa]/.test(flags) : (flags & O_CREAT) !== 0) reach('operation')
    const descriptor = original.openSync?.(...parameters) as number
    open.add(descriptor)
    return descriptor
  }
  methods.closeSync = (...parameters) => {
    open.delete(parameters[0] as number)
    return original.closeSync?.(...parameters)
  }

  return {
    reach,
    end,
    get dead() {
      return dead
    },
    bury() {
      Object.assign(methods, original)
      for (const descriptor of open) fs.closeSync(descriptor)
    },
  }
}
