/**
 * The proof: at every point of a recording, every state that a crash may leave is opened by the real
 * store and must hold what was there before the interrupted call or what is there after it, and
 * after the call's return the latter.
 */
import fs from 'node:fs'
import path from 'node:path'
import { type CredentialStore, openCredentialStore } from '@certvend/client'
import { type Damage, damaged } from './damages.ts'
import { createDisk, type Disk, type Model } from './disk.ts'
import {
  type Cast,
  createCast,
  createJudge,
  finish,
  type Judge,
  stateDirectory,
} from './judgement.ts'
import { type Operation, record, sentence } from './recording.ts'
import {
  type Call,
  type Change,
  filesOf,
  type Recording,
  recordScenario,
  type Scenario,
} from './scenarios.ts'
import { installStandIns } from './standins.ts'
import { listing, materialise, type Tree, treeDigest } from './tree.ts'

/** The three of {@link Model}, and two that crash a second time. */
export type ProofModel = Model | 'mending' | 'reopened'

export const proofModels: readonly ProofModel[] = [
  'killed',
  'ordered',
  'weak',
  'mending',
  'reopened',
]

export interface CounterExample {
  readonly model: ProofModel
  /** After which operation of which call. */
  readonly point: string
  readonly expected: readonly string[]
  readonly found: string
  readonly tree: readonly string[]
}

export interface Verdict {
  /** Distinct states opened. */
  readonly states: number
  readonly failures: readonly CounterExample[]
}

/** A moment of a life, and what it may be taken for after a crash. */
interface Point {
  readonly label: string
  readonly operations: readonly Operation[]
  readonly allowed: readonly string[]
}

function* points(prelude: readonly Operation[], calls: readonly Call[]): Iterable<Point> {
  const operations = [...prelude]
  for (const { name, before, after, operations: added, reported = added.length } of calls) {
    yield { label: `before ${name}`, operations: [...operations], allowed: [before] }
    for (const [index, operation] of added.entries()) {
      operations.push(operation)
      yield {
        label: `${name}, after operation ${index + 1} of ${added.length}: ${sentence(operation)}`,
        operations: [...operations],
        allowed: index + 1 < reported ? [before, after] : [after],
      }
    }
  }
}

const played = (operations: readonly Operation[], tree?: Tree): Disk => {
  const disk = createDisk(tree)
  for (const operation of operations) disk.apply(operation)
  return disk
}

const currentPart = (situation: string): string =>
  /^current [^,]*/.exec(situation)?.[0] ?? 'nothing'

export interface Prover {
  record(scenario: Scenario): Promise<Recording>
  prove(recording: Recording, model: ProofModel): Promise<Verdict>
  /** Opens a damaged state, and the states that a power cut leaves while it is mended. */
  proveMending(damage: Damage, life: Recording): Promise<Verdict>
  /** Distinct states opened by the real store so far. */
  readonly opened: number
  close(): void
}

/** @param limits `failures`: stop after so many counter-examples. */
export function createProver(workspace: string, limits: { failures: number }): Prover {
  const standIns = installStandIns()
  const cast = createCast()
  const judge = createJudge(fs.mkdtempSync(path.join(workspace, 'states-')), cast)

  function trial(model: ProofModel): Trial {
    const failures: CounterExample[] = []
    const states = new Set<string>()
    const tested = new Set<string>()
    const test: Test = async (tree, point, allowed, readers = allowed.map(currentPart)) => {
      const digest = treeDigest(tree)
      states.add(digest)
      const key = [digest, ...allowed, ...readers].join('|')
      if (tested.has(key)) return
      tested.add(key)
      const { situation, reader, faults } = await judge.judge(tree)
      const wrong = [...faults]
      if (!allowed.includes(situation)) wrong.unshift(`it held: ${situation}`)
      if (!readers.includes(reader)) wrong.push(`a plain reader saw ${reader}`)
      if (wrong.length === 0) return
      const found = wrong.join('; ')
      failures.push({ model, point, expected: allowed, found, tree: listing(tree) })
    }
    return { test, failures, verdict: () => ({ states: states.size, failures }) }
  }

  async function prove(recording: Recording, model: ProofModel): Promise<Verdict> {
    const { test, failures, verdict } = trial(model)
    const visited = new Set<string>()
    for (const point of points(recording.prelude, recording.calls)) {
      if (failures.length >= limits.failures) break
      standIns.rewind('another life')
      if (model === 'reopened') await reopened(point, cast, workspace, test, recording.another)
      else if (model === 'mending')
        for (const tree of played(point.operations).crashStates('weak'))
          await mending(tree, `${point.label}; power cut`, judge, test, visited)
      else
        for (const tree of played(point.operations).crashStates(model))
          await test(tree, point.label, point.allowed)
    }
    return verdict()
  }

  async function proveMending(damage: Damage, life: Recording): Promise<Verdict> {
    const { test, verdict } = trial('mending')
    const [whole] = played(life.prelude).crashStates('killed')
    const tree = damaged(whole as Tree, damage)
    const { reader } = await judge.judge(tree)
    await test(tree, damage.name, [damage.opens], [reader])
    await mending(tree, damage.name, judge, test, new Set())
    return verdict()
  }

  return {
    async record(scenario) {
      standIns.rewind('life')
      return await recordScenario(scenario, workspace, cast)
    },
    prove,
    proveMending,
    get opened() {
      return judge.opened
    },
    close: standIns.remove,
  }
}

interface Trial {
  readonly test: Test
  readonly failures: readonly CounterExample[]
  verdict(): Verdict
}

type Test = (
  tree: Tree,
  point: string,
  allowed: readonly string[],
  readers?: readonly string[],
) => Promise<void>

/** The power goes while the store mends what it found, and again, until nothing is new. */
async function mending(
  tree: Tree,
  label: string,
  judge: Judge,
  test: Test,
  visited: Set<string>,
): Promise<void> {
  if (visited.has(treeDigest(tree))) return
  visited.add(treeDigest(tree))
  const { tree: opened, situation, reader, mending: operations } = await judge.judge(tree)
  const done: Operation[] = []
  for (const operation of operations) {
    done.push(operation)
    const point = `${label}; mending: ${sentence(operation)}`
    for (const next of played(done, opened).crashStates('weak')) {
      await test(next, point, [situation], [reader, currentPart(situation)])
      await mending(next, `${label}; mending cut short`, judge, test, visited)
    }
  }
}

/**
 * The process is killed, what it did not sync stays in the kernel's memory; the next one reads it,
 * goes on, and then the power goes.
 */
async function reopened(
  point: Point,
  cast: Cast,
  workspace: string,
  test: Test,
  another: Change = (operations) => [...operations],
): Promise<void> {
  const root = fs.mkdtempSync(path.join(workspace, 'reopened-'))
  const disk = played(point.operations)
  for (const tree of disk.crashStates('killed')) materialise(tree, root)
  const opening = record(root, () => openCredentialStore(path.join(root, stateDirectory)))
  const store = await opening.result
  const opened = cast.describe(store)
  const calls: Call[] = []
  const run = (name: string, action: () => void): void => {
    const before = cast.describe(store)
    const { operations } = record(root, action)
    const done = another(operations, filesOf(operations))
    calls.push({ name, before, after: cast.describe(store), operations: done })
  }
  if (!opened.startsWith('current') || /requested/.test(opened)) {
    run('begin', () => cast.nameKey(store.begin().privateKey.publicKey))
    run('issue', () => issuePending(store, cast))
  }
  if (store.pending()) run('promote', () => finish(store, cast))
  store.close()
  fs.rmSync(root, { recursive: true })

  const done = [...point.operations]
  const label = `${point.label}; killed; opened again`
  for (const operation of another(opening.operations, new Set())) {
    done.push(operation)
    for (const tree of played(done).crashStates('weak'))
      await test(tree, `${label}: ${sentence(operation)}`, point.allowed)
  }
  // What opening showed as in use must stay; what is pending is promised by `begin` only.
  const shown = point.allowed.filter((one) => currentPart(one) === currentPart(opened))
  for (const tree of played(done).crashStates('weak')) await test(tree, label, shown)
  for (const next of points(done, calls)) {
    const start = next.label.startsWith('before')
    if (start) continue
    const first = next.allowed.length > 1 && next.allowed[0] === opened
    const allowed = first ? [...new Set([...shown, ...next.allowed])] : next.allowed
    for (const tree of played(next.operations).crashStates('weak'))
      await test(tree, `${label}; ${next.label}`, allowed)
  }
}

function issuePending(store: CredentialStore, cast: Cast): void {
  const pending = store.pending()
  if (pending?.state === 'requested') store.issue(cast.answer(pending.privateKey.publicKey))
}
