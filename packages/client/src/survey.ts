/**
 * What lies in a state directory, judged, and what it takes to mend it.
 *
 * `survey` reads; `mendings` is pure. Repeating the mendings of any state, also of one half mended,
 * ends in the same state.
 */
import fs from 'node:fs'
import path from 'node:path'
import type { Credential, Pending } from './credential.ts'
import { isUnfinished } from './durable.ts'
import { CertvendError } from './errors.ts'
import { type Generation, readGeneration } from './generation.ts'

export type LinkName = 'current' | 'pending'

export interface Survey {
  readonly current?: Credential
  readonly pending?: Pending
  /** Highest generation number in sight; 0 when there is none. */
  readonly newest: number
  /** Where the links point. */
  readonly links: Readonly<Partial<Record<LinkName, number>>>
  readonly generations: ReadonlyMap<number, Generation>
  /** Paths, relative to the state directory, of what was never finished. */
  readonly unfinished: readonly string[]
}

/** One repair; `because` is set where something was lost or damaged, not for tidying. */
export type Mending =
  | {
      readonly do: 'point'
      readonly link: LinkName
      readonly generation: number
      readonly because?: string
    }
  | { readonly do: 'unlink'; readonly link: LinkName; readonly because?: string }
  | { readonly do: 'remove'; readonly name: string; readonly because?: string }

export const generationName = (number: number): string => String(number).padStart(10, '0')

function list(directory: string): string[] {
  try {
    return fs.readdirSync(directory)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ENOTDIR') return []
    throw new CertvendError('ERR_STORE_UNREADABLE', `cannot read ${directory} (${code})`, {
      cause: error,
    })
  }
}

/** The generation that `link` names; 0 when it names none, nothing when it is not there. */
function follow(root: string, link: LinkName): number | undefined {
  const target = path.join(root, link)
  try {
    return Number(/^generations\/(\d{10})$/.exec(fs.readlinkSync(target))?.[1] ?? 0)
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
    if (code === 'EINVAL') return 0 // not a link
    throw new CertvendError('ERR_STORE_UNREADABLE', `cannot read ${target} (${code})`, {
      cause: error,
    })
  }
}

/**
 * Reads and judges the state directory `root`.
 *
 * @throws {CertvendError} `ERR_STORE_CORRUPT` when the credential in use is damaged, its key too,
 *   and no other is complete; `ERR_STORE_UNREADABLE`, `ERR_STORE_UNSAFE`
 */
export function survey(root: string): Survey {
  for (let tries = 0; ; tries++) {
    const before = follow(root, 'current')
    const seen = look(root, before)
    // A writer may have moved on and removed what the link named when we began.
    if (follow(root, 'current') === before || tries === 3) return judge(root, seen)
  }
}

type Seen = Pick<Survey, 'links' | 'generations' | 'unfinished' | 'newest'>

/** What lies there, each generation read and judged by itself; reads only. */
export function look(root: string, current: number | undefined = follow(root, 'current')): Seen {
  const pending = follow(root, 'pending')
  const generations = new Map<number, Generation>()
  const unfinished = list(root).filter(isUnfinished)
  for (const name of list(path.join(root, 'generations'))) {
    const relative = path.join('generations', name)
    if (!/^\d{10}$/.test(name)) {
      unfinished.push(relative)
      continue
    }
    const directory = path.join(root, relative)
    generations.set(Number(name), readGeneration(directory, Number(name)))
    for (const file of list(directory))
      if (isUnfinished(file)) unfinished.push(path.join(relative, file))
  }
  return {
    links: {
      ...(current === undefined ? {} : { current }),
      ...(pending === undefined ? {} : { pending }),
    },
    generations,
    unfinished,
    newest: Math.max(0, ...generations.keys()),
  }
}

const newestFirst = (generations: ReadonlyMap<number, Generation>): [number, Generation][] =>
  [...generations].sort(([a], [b]) => b - a)

function judge(root: string, seen: Seen): Survey {
  const { links, generations } = seen
  const linked = generations.get(links.current ?? 0)
  const complete = newestFirst(generations).flatMap(([, one]) =>
    one.state === 'issued' ? [one] : [],
  )
  const live = linked?.state === 'issued' ? linked : complete[0]
  const current = live?.credential
  const pending = judgePending(seen, current)
  if (!current && !pending && links.current !== undefined)
    throw new CertvendError(
      'ERR_STORE_CORRUPT',
      `the credential in ${root} is damaged (${linked?.state === 'broken' ? linked.reason : 'generation missing'}) and there is no other`,
    )
  return { ...seen, ...(current ? { current } : {}), ...(pending ? { pending } : {}) }
}

/**
 * What `pending` names, if that is newer than the credential in use: an older one was answered by it.
 * The answer to a request may be a newer generation, with a key of the server's, which a crash kept
 * from being named. Without a credential in use, the newest key: it may have been sent.
 */
function judgePending({ links, generations }: Seen, current?: Credential): Pending | undefined {
  const number = links.pending ?? 0
  const named = generations.get(number)
  if (named && named.state !== 'broken' && number > (current?.generation ?? 0)) {
    const [answer] = newestFirst(generations).filter(([, { state }]) => state === 'issued')
    if (current && named.state === 'requested' && answer && answer[0] > number)
      return { ...(answer[1] as Generation & { state: 'issued' }), generation: answer[0] }
    return { ...named, generation: number }
  }
  if (current) return undefined
  for (const [generation, one] of newestFirst(generations))
    if (one.state === 'requested') return { ...one, generation }
  return undefined
}

/** The repairs that make the links say what the survey judged, and remove the rest. */
export function mendings(seen: Survey): Mending[] {
  const { current, pending, links, generations, unfinished } = seen
  const wanted: Mending[] = []
  const damaged = links.current !== undefined && links.current !== current?.generation
  if (current && links.current !== current.generation)
    wanted.push({
      do: 'point',
      link: 'current',
      generation: current.generation,
      ...(damaged
        ? {
            because: `generation ${links.current} is damaged; generation ${current.generation} took its place`,
          }
        : {}),
    })
  if (pending && links.pending !== pending.generation)
    wanted.push({ do: 'point', link: 'pending', generation: pending.generation })
  if (!current && damaged)
    wanted.push({
      do: 'unlink',
      link: 'current',
      because: 'the certificate in use is damaged; its key is whole and will be asked for again',
    })
  if (!pending && links.pending !== undefined) wanted.push({ do: 'unlink', link: 'pending' })
  const leftover = [...generations.keys()]
    .filter((number) => number !== current?.generation && number !== pending?.generation)
    .map((number) => path.join('generations', generationName(number)))
  for (const name of [
    ...leftover,
    ...unfinished.filter((name) => !leftover.includes(path.dirname(name))),
  ])
    wanted.push({ do: 'remove', name })
  return wanted
}
