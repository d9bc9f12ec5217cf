/** A real process, killed or failed at every system call that touches the store's files. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { createDisk } from './disk.ts'
import { type Cast, createCast, createJudge, type Judge } from './judgement.ts'
import type { Line } from './lines.ts'
import { type Recording, recordScenario, type Scenario, type StepName } from './scenarios.ts'
import { type Life, live, nameKeys, type SystemCall, traceLife } from './tracing.ts'
import { captureTree, materialise, type Tree } from './tree.ts'

export interface Sweep {
  readonly name: string
  /** How many times something was done to a process or a disk. */
  readonly tried: number
  readonly failures: readonly string[]
  /** What the counts are made of, for people. */
  readonly detail?: string
}

/** A scenario ready to be lived by another process: its disk, its names, its outcome. */
export interface Stage {
  readonly scenario: Scenario
  readonly recording: Recording
  readonly cast: Cast
  readonly judge: Judge
  readonly start: Tree
  /** Keys named before. */
  readonly known: number
}

export async function setStage(scenario: Scenario, workspace: string): Promise<Stage> {
  const cast = createCast()
  const recording = await recordScenario(scenario, workspace, cast)
  const disk = createDisk()
  for (const operation of recording.prelude) disk.apply(operation)
  const [start] = disk.crashStates('killed')
  return {
    scenario,
    recording,
    cast,
    judge: createJudge(fs.mkdtempSync(path.join(workspace, 'judged-')), cast),
    start: start as Tree,
    known: scenario.prelude.filter((step) => step === 'begin').length,
  }
}

/** A new disk for one life. */
export function newRoot({ start }: Stage, workspace: string): string {
  const root = fs.mkdtempSync(path.join(workspace, 'real-'))
  materialise(start, root)
  return root
}

/** What may be found on the disk of a life that told `lines` and then ended. */
function allowedAfter({ recording, known }: Stage, lines: readonly Line[]): string[] {
  const { calls } = recording
  const labels = [calls[0]?.before ?? '', ...calls.map(({ after }) => after)]
  const returned = lines.filter(({ at }) => at === 'returned').length
  const calling = lines.filter(({ at }) => at === 'calling').length
  const begun = lines.filter((line) => line.at === 'returned' && line.step === 'begin').length
  const told = (label: string): string =>
    label.replace(/K(\d+)/, (name, number) =>
      Number(number) > known + begun ? 'unknown key' : name,
    )
  const possible = labels.slice(returned, calling + 1)
  // A key that begin made and never told has no name, unless a second attempt found and told it.
  return [...new Set([...possible, ...possible.map(told)])]
}

async function judgeDisk(
  stage: Stage,
  root: string,
  allowed: readonly string[],
): Promise<string[]> {
  const { situation, faults } = await stage.judge.judge(captureTree(root))
  const wrong = [...faults]
  if (!allowed.includes(situation))
    wrong.unshift(`held ${situation} instead of ${allowed.join(' or ')}`)
  return wrong
}

/** Runs `task` for each, as many at once as there are processors. */
async function inParallel<T>(all: readonly T[], task: (one: T) => Promise<void>): Promise<void> {
  const queue = [...all]
  const work = async (): Promise<void> => {
    for (let one = queue.shift(); one !== undefined; one = queue.shift()) await task(one)
  }
  await Promise.all(Array.from({ length: os.availableParallelism() }, work))
}

function countsOf(calls: readonly SystemCall[]): string {
  const counts = new Map<string, number>()
  for (const { name } of calls) counts.set(name, (counts.get(name) ?? 0) + 1)
  return [...counts].map(([name, count]) => `${name} ${count}`).join(', ')
}

/** Lives, hurt at `call`. */
async function hurt(
  stage: Stage,
  workspace: string,
  call: SystemCall,
  how: string,
): Promise<{ life: Life; root: string; hit: boolean }> {
  const root = newRoot(stage, workspace)
  const { name, count } = call
  const touching = ['-P', path.join(root, call.path), '-e', `trace=${name}`]
  const inject = ['-e', `inject=${name}:${how}:when=${count}`]
  const life = await live(root, stage.known, stage.scenario.steps, [...touching, ...inject])
  const hit = life.signal === 'SIGKILL' || life.trace.includes('(INJECTED)')
  return { life, root, hit }
}

/** @param chosen which of the life's system calls to be killed at; default all. */
export async function sweepKills(
  scenario: Scenario,
  workspace: string,
  chosen: (call: SystemCall) => boolean = () => true,
): Promise<Sweep> {
  const stage = await setStage(scenario, workspace)
  const { calls } = await traceLife(newRoot(stage, workspace), stage.known, scenario.steps)
  const swept = calls.filter(chosen)
  const failures: string[] = []
  await inParallel(swept, async (call) => {
    const { life, root, hit } = await hurt(stage, workspace, call, 'signal=KILL')
    const where = `killed at ${call.text}`
    if (!hit) failures.push(`${where}: was not killed; ${life.errors}`)
    nameKeys(life, stage.cast, stage.known)
    for (const wrong of await judgeDisk(stage, root, allowedAfter(stage, life.lines)))
      failures.push(`${where}: ${wrong}`)
    fs.rmSync(root, { recursive: true })
  })
  return {
    name: `kill -9, ${scenario.name}`,
    tried: swept.length,
    failures,
    detail: countsOf(swept),
  }
}

const changes: Record<string, readonly string[]> = {
  mkdir: ['ENOSPC', 'EIO', 'EROFS', 'EACCES', 'EDQUOT'],
  symlink: ['ENOSPC', 'EIO', 'EROFS', 'EACCES', 'EDQUOT'],
  rename: ['ENOSPC', 'EIO', 'EROFS', 'EACCES', 'EDQUOT'],
  write: ['ENOSPC', 'EIO', 'EDQUOT'],
  fsync: ['ENOSPC', 'EIO', 'EROFS', 'EDQUOT'],
  chmod: ['EIO', 'EROFS', 'EACCES'],
  fchmod: ['EIO', 'EROFS'],
  unlink: ['EIO', 'EROFS', 'EACCES'],
  rmdir: ['EIO', 'EROFS', 'EACCES'],
}

/** Errors that a call may plausibly end with. */
function errorsOf({ name, text }: SystemCall): readonly string[] {
  if (name === 'openat')
    return text.includes('O_CREAT')
      ? ['ENOSPC', 'EIO', 'EROFS', 'EACCES', 'EMFILE', 'EDQUOT']
      : ['EIO', 'EACCES', 'EMFILE']
  return changes[name] ?? ['EIO']
}

/** Every plausible error at every call: typed, with a hint; nothing lost; the next attempt succeeds. */
export async function sweepFaults(
  scenario: Scenario,
  workspace: string,
  chosen: (call: SystemCall) => boolean = () => true,
): Promise<Sweep> {
  const stage = await setStage(scenario, workspace)
  const { calls } = await traceLife(newRoot(stage, workspace), stage.known, scenario.steps)
  const faults = calls
    .filter(chosen)
    .flatMap((call) => errorsOf(call).map((error) => ({ call, error })))
  const failures: string[] = []
  let typed = 0
  await inParallel(faults, async ({ call, error }) => {
    const { life, root, hit } = await hurt(stage, workspace, call, `error=${error}`)
    nameKeys(life, stage.cast, stage.known)
    const copy = `${root}-failed`
    const wrong = [...judgeLines(life, scenario.steps, call.name)]
    if (!hit) wrong.push('was not hit')
    if (life.lines.some(({ at }) => at === 'failed')) typed++
    if (fs.existsSync(copy)) {
      const failed = life.lines.findIndex(({ at }) => at === 'failed')
      const allowed = allowedAfter(stage, life.lines.slice(0, failed))
      for (const one of await judgeDisk(stage, copy, allowed))
        wrong.push(`after the failure it ${one}`)
      fs.rmSync(copy, { recursive: true })
    }
    const last = stage.recording.calls.at(-1)?.after ?? ''
    for (const one of await judgeDisk(stage, root, [last])) wrong.push(`after the retry it ${one}`)
    for (const one of wrong) failures.push(`${error} at ${call.text}: ${one}`)
    fs.rmSync(root, { recursive: true })
  })
  return {
    name: `failing calls, ${scenario.name}`,
    tried: faults.length,
    failures,
    detail: `${typed} told the caller by a typed error, the others overcome`,
  }
}

function* judgeLines(
  { lines, code, errors }: Life,
  steps: readonly StepName[],
  name: string,
): Iterable<string> {
  for (const line of lines) {
    if (line.at === 'failed' && !/^ERR_STORE_(UNWRITABLE|UNREADABLE)$/.test(line.code))
      yield `${line.step} failed with ${line.code} (${line.message})`
    if (line.at === 'failed' && line.hint === '') yield `${line.step} failed without a hint`
    // A close that strace fails is never made.
    if (line.at === 'closed' && line.open.length > 0 && name !== 'close')
      yield `left open: ${line.open.join(', ')}`
  }
  const returned = lines.filter(({ at }) => at === 'returned').length
  if (returned !== steps.length || code !== 0)
    yield `the life ended early (${code}): ${errors.trim().split('\n').slice(0, 6).join(' | ')}`
}
