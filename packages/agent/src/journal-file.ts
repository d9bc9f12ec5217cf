/**
 * The journal on disk: `journal.json` in the state directory, replaced as a whole, so that a power
 * cut leaves the old one or the new one.
 *
 * At most {@link mostBytes}, at most {@link mostWritesPerDay} writes in any day, across restarts: the
 * file remembers when it was written. What may not be written yet is kept in memory and goes with
 * the next write.
 */
import fs from 'node:fs'
import path from 'node:path'
import { type Clock, isCertvendError } from '@certvend/client'
import { replaceFile, syncDirectory } from '@certvend/client/durable'
import * as v from 'valibot'
import type { Episode } from './journal.ts'

export const mostBytes: number = 64 * 1024
export const mostWritesPerDay = 8
const mostEpisodes = 64
const longestText = 300
const dayMs = 24 * 3600_000
/** An episode that goes on unchanged is written again after this, in milliseconds. */
const againMs = 6 * 3600_000

const instant = v.pipe(v.string(), v.isoTimestamp())
const words = v.pipe(v.string(), v.maxLength(1000))
const EpisodeShape = v.object({
  began: instant,
  last: instant,
  ended: v.optional(instant),
  attempts: v.number(),
  code: words,
  remedy: words,
  message: words,
  hint: words,
  before: v.array(words),
  worked: v.optional(v.object({ since: instant, until: instant })),
  version: words,
  coincidences: v.array(
    v.object({ what: v.picklist(['clock', 'network', 'version', 'start']), words }),
  ),
})
const JournalShape = v.object({
  version: v.literal(1),
  writes: v.array(instant),
  episodes: v.array(EpisodeShape),
})

export interface Journal {
  /** Newest last. */
  episodes(): readonly Episode[]
  /** Remembers an episode, which takes the place of an earlier state of itself. */
  hold(episode: Episode): void
  /** As {@link hold}, and writes if there is need and the day's measure is not full; whether it did. */
  put(episode: Episode, options: { readonly urgent: boolean }): boolean
}

export const journalFile = (stateDirectory: string): string =>
  path.join(stateDirectory, 'journal.json')

interface Content {
  readonly writes: readonly string[]
  readonly episodes: readonly Episode[]
}
const empty: Content = { writes: [], episodes: [] }

/**
 * The episodes in `stateDirectory`, newest last; none when there is no journal or it is none of ours.
 *
 * @throws NodeJS.ErrnoException when it is there and this user may not read it
 */
export const readJournal = (stateDirectory: string): readonly Episode[] =>
  readContent(stateDirectory).episodes

function readContent(stateDirectory: string): Content {
  let text: string
  try {
    const file = journalFile(stateDirectory)
    const found = fs.lstatSync(file)
    if (!found.isFile() || found.size > mostBytes) return empty
    text = fs.readFileSync(file, 'utf8')
  } catch (error) {
    if (/^(ENOENT|ENOTDIR)$/.test(String((error as NodeJS.ErrnoException).code))) return empty
    throw error
  }
  try {
    const result = v.safeParse(JournalShape, JSON.parse(text))
    return result.success
      ? { writes: result.output.writes, episodes: result.output.episodes as Episode[] }
      : empty
  } catch {
    return empty
  }
}

/** The journal of the process that holds the store's lock. */
export function openJournal(stateDirectory: string, clock: Clock): Journal {
  let content: Content | undefined
  const load = (): Content => {
    try {
      content ??= readContent(stateDirectory)
    } catch {
      content = empty
    }
    return content
  }

  function hold(episode: Episode): void {
    const { writes, episodes } = load()
    const kept = episodes.filter(({ began }) => began !== episode.began)
    content = { writes, episodes: [...kept, shortened(episode)].slice(-mostEpisodes) }
  }

  function due(urgent: boolean): boolean {
    const now = clock.now().getTime()
    // By distance: a clock that was set back leaves times ahead of it.
    const ages = load().writes.map((at) => Math.abs(now - Date.parse(at)))
    if (ages.filter((age) => age < dayMs).length >= mostWritesPerDay) return false
    return urgent || Math.min(...ages, Number.POSITIVE_INFINITY) >= againMs
  }

  function write(): boolean {
    if (!fs.existsSync(stateDirectory)) return false
    const { writes, episodes } = load()
    const recent = [...writes.slice(1 - 2 * mostWritesPerDay), clock.now().toISOString()]
    content = { writes: recent, episodes }
    try {
      replaceFile(journalFile(stateDirectory), textOf(content))
      syncDirectory(stateDirectory)
      return true
    } catch (error) {
      // A disk that takes nothing is told of elsewhere; the attempt counts, so that it is rare.
      if (isCertvendError(error)) return false
      throw error
    }
  }

  return {
    episodes: () => load().episodes,
    hold,
    put(episode, { urgent }) {
      hold(episode)
      return due(urgent) && write()
    },
  }
}

function textOf({ writes, episodes }: Content): string {
  for (let from = 0; ; from++) {
    const text = `${JSON.stringify({ version: 1, writes, episodes: episodes.slice(from) })}\n`
    if (Buffer.byteLength(text) <= mostBytes) return text
  }
}

const shortened = (episode: Episode): Episode => ({
  ...episode,
  message: episode.message.slice(0, longestText),
  hint: episode.hint.slice(0, longestText),
})
