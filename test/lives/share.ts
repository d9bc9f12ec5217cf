/** A share of the lives in a process of its own, so that every processor has some: `node share.js REALM COUNT SEED`. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import os from 'node:os'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { newTally, type Tally } from './life.ts'
import { liveMany, type Outcome } from './lives.ts'
import { createMemoryRealm } from './memory.ts'
import { createProcessRealm } from './processes.ts'

export type RealmName = 'memory' | 'processes'

/** Lives `count` lives, as many at once as there are processors; the first outcome that is wrong, or all together. */
export async function liveShared(
  realm: RealmName,
  { count, seed }: { count: number; seed: number },
): Promise<Outcome> {
  const shares = Math.min(count, os.availableParallelism())
  const outcomes = await Promise.all(
    Array.from({ length: shares }, async (_, index) => {
      const mine = Math.floor(count / shares) + (index < count % shares ? 1 : 0)
      const program = fileURLToPath(import.meta.url)
      const child = spawn(process.execPath, [program, realm, String(mine), String(seed + index)], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      const [said, [code]] = await Promise.all([text(child.stdout), once(child, 'close')])
      if (code !== 0) throw new Error(`a share of the lives ended with ${code}`)
      return JSON.parse(said) as Outcome
    }),
  )
  const wrong = outcomes.find(({ counterExample }) => counterExample)
  return { seed, ...wrong, tally: outcomes.map(({ tally }) => tally).reduce(sum, newTally()) }
}

function sum(one: Tally, other: Tally): Tally {
  const endings = { ...one.endings }
  for (const [name, count] of Object.entries(other.endings))
    endings[name] = (endings[name] ?? 0) + count
  return {
    lives: one.lives + other.lives,
    boots: one.boots + other.boots,
    killed: one.killed + other.killed,
    requests: one.requests + other.requests,
    made: one.made + other.made,
    endings,
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [realmName, count, seed] = process.argv.slice(2) as [RealmName, string, string]
  const realm = realmName === 'memory' ? createMemoryRealm() : await createProcessRealm()
  const outcome = await liveMany(realm, { count: Number(count), seed: Number(seed) })
  await realm.close()
  process.stdout.write(JSON.stringify(outcome))
}
