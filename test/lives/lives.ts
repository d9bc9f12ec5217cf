/** Draws lives, lives them, and finds the shortest that goes wrong. */
import fc from 'fast-check'
import { life, story } from './happenings.ts'
import { live, newTally, type Realm, type Tally } from './life.ts'

export interface Outcome {
  readonly seed: number
  readonly tally: Tally
  /** The shortest life found that goes wrong, for people. */
  readonly counterExample?: readonly string[]
}

/** @param seed whole number; the same seed draws the same lives. */
export async function liveMany(
  realm: Realm,
  { count, seed }: { count: number; seed: number },
): Promise<Outcome> {
  const tally = newTally()
  const wrong = new Map<string, readonly string[]>()
  const property = fc.asyncProperty(life, async (one) => {
    const lines = story(one)
    const violations = await live(one, realm, tally).catch((error: Error) => [String(error.stack)])
    if (violations.length > 0) wrong.set(lines.join('\n'), violations)
    return violations.length === 0
  })
  const { failed, counterexample, numShrinks } = await fc.check(property, { numRuns: count, seed })
  if (!failed || !counterexample) return { seed, tally }
  const lines = story(counterexample[0])
  const violations = wrong.get(lines.join('\n')) ?? []
  return {
    seed,
    tally,
    counterExample: [
      ...violations,
      `in this life, made shorter ${numShrinks} times (seed ${seed}):`,
      ...lines.map((line) => `  ${line}`),
      'and then nothing is hostile any more',
    ],
  }
}
