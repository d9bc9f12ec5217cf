/** Lives one life to its end and tells what went wrong in it. */
import fs from 'node:fs'
import path from 'node:path'
import type { Endpoint } from '@certvend/client'
import type { Ending } from './device.ts'
import type { Boot, Life } from './happenings.ts'
import { createWitness, type Instant, type Witness } from './witness.ts'
import { createWorld, type World } from './world.ts'

/** Where a device boots: in this process, or in one of its own. */
export interface Realm {
  /** Where new directories are made. */
  readonly workspace: string
  readonly endpoint?: Endpoint
  /** One boot, from power on to its end; `now` is the true time then. */
  boot(boot: Boot, scene: Scene): Promise<{ ending: Ending; at: Instant }>
}

/** All that a boot meets. */
export interface Scene {
  readonly world: World
  readonly witness: Witness
  readonly directory: string
  readonly now: number
}

/** What happened in all lives, for people. */
export interface Tally {
  lives: number
  boots: number
  killed: number
  requests: number
  made: number
  endings: Record<string, number>
}

export const newTally = (): Tally => ({
  lives: 0,
  boots: 0,
  killed: 0,
  requests: 0,
  made: 0,
  endings: {},
})

const begin = Date.UTC(2027, 0, 1)
const calm: Boot = { do: 'boot', acts: [], again: false, clockless: false }
/** Boots that a device may need in peace, with a person beside it who does what it says. */
const enough = 6

export async function live(life: Life, realm: Realm, tally: Tally): Promise<readonly string[]> {
  const root = fs.mkdtempSync(path.join(realm.workspace, 'life-'))
  const directory = path.join(root, 'device', 'state')
  const { endpoint } = realm
  const world = createWorld({ oneKey: life.oneKey, ...(endpoint ? { endpoint } : {}) })
  const witness = createWitness(world, directory)
  const { violations } = witness
  let now = begin

  async function power(boot: Boot): Promise<Ending> {
    witness.bootBegins(boot)
    const { ending, at } = await realm.boot(boot, { world, witness, directory, now })
    now = Math.max(now, at.now) + 1000
    witness.bootEnds(ending, at)
    tally.boots++
    if (ending.as === 'killed') tally.killed++
    return ending
  }

  tally.lives++
  for (const one of life.happenings) {
    if (violations.length > 0) break
    if (one.do === 'boot') await power(one)
    else if (one.do === 'pass') now += one.minutes * 60_000
    else if (one.do === 'revoke') world.revoke(one.which)
    else world[one.do]()
  }

  // From here on nothing is hostile, and a person does what the device says.
  let ending: Ending | undefined
  let again = false
  for (let count = 0; violations.length === 0 && count < enough; count++) {
    ending = await power({ ...calm, again })
    const name = ending.as === 'told' ? ending.code : ending.as
    if (count === 0) tally.endings[name] = (tally.endings[name] ?? 0) + 1
    if (ending.as === 'online') break
    if (ending.as === 'killed') violations.push('1: in peace it waits for ever')
    if (ending.as === 'told' && ending.code === 'ERR_CLAIM_REFUSED') world.enable()
    world.rearm()
    again = ending.as === 'turned away'
  }
  if (violations.length === 0 && ending?.as !== 'online')
    violations.push(`1: does not come online, whatever a person does: ${JSON.stringify(ending)}`)

  tally.requests += world.requests
  tally.made += world.made
  fs.rmSync(root, { recursive: true })
  return violations
}
