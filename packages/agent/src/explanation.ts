/**
 * What went wrong last, in one sentence with its evidence. Pure: of an episode of the journal and of
 * what the running agent says of itself.
 */
import { errorCodes, errorDocs } from '@certvend/client'
import type { Episode } from './journal.ts'
import type { LiveDocument } from './live.ts'
import { clockTime, duration } from './wording.ts'

/** What `certvend explain --json` prints. */
export interface Explanation {
  readonly version: 1
  /** `well`: nothing is wrong now; `failing`: it still is, as far as anybody remembers. */
  readonly state: 'well' | 'failing'
  /** One sentence: lower case, no final period. */
  readonly sentence: string
  readonly episode?: Episode
}

export function explainEpisode(
  episode: Episode | undefined,
  live: LiveDocument | undefined,
): Explanation {
  if (!episode) {
    const now = live ? `the agent is ${live.connection}` : 'no agent answers'
    return { version: 1, state: 'well', sentence: `no failure is remembered, and ${now}` }
  }
  const { began, ended, message, code, worked, coincidences } = episode
  const why = `${message} (${code})`
  const [first] = coincidences
  const then = first ? `; it began when ${first.words}` : ''
  if (ended !== undefined)
    return {
      version: 1,
      state: 'well',
      sentence: `the last failure is over: from ${clockTime(began)} to ${clockTime(ended)} (${between(began, ended)}), ${why}${then}`,
      episode,
    }
  const before = worked
    ? `it worked until ${clockTime(worked.until)}, and since then`
    : `it has not worked since ${clockTime(began)}`
  const stopped = live ? '' : ', when the agent last ran'
  return {
    version: 1,
    state: 'failing',
    sentence: `${before}${stopped}: ${why}${then}`,
    episode,
  }
}

const between = (from: string, to: string): string =>
  duration(Math.max(0, Date.parse(to) - Date.parse(from)))

/** The sentence, and below it what it rests on. */
export function explanationInWords({ sentence, episode }: Explanation): string {
  if (!episode) return sentence
  const { began, last, attempts, worked, coincidences, before, version, hint, code } = episode
  const row = (name: string, value: string): string => `  ${name.padEnd(10)}${value}`
  return [
    sentence,
    row('since', clockTime(began)),
    row(
      'attempts',
      attempts === 1 ? `1, at ${clockTime(last)}` : `${attempts}, the last at ${clockTime(last)}`,
    ),
    ...(worked
      ? [
          row(
            'worked',
            `from ${clockTime(worked.since)} to ${clockTime(worked.until)} (${between(worked.since, worked.until)})`,
          ),
        ]
      : []),
    ...coincidences.map(({ words }) => row('then', words)),
    ...(before.length > 0 ? [row('before', before.join(', '))] : []),
    row('agent', version),
    row('do this', hint),
    ...(errorCodes.some((one) => one === code) ? [row('more', errorDocs(code))] : []),
  ].join('\n')
}
