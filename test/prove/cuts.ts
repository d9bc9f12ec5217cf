/** Real power cuts on real file systems, real full disks, and errors at every step, in this process. */
import fs from 'node:fs'
import path from 'node:path'
import { type CredentialStore, isCertvendError, openCredentialStore } from '@certvend/client'
import { type Cast, createCast, createJudge, type Judge, stateDirectory } from './judgement.ts'
import type { Sweep } from './kills.ts'
import { type Operation, record, sentence } from './recording.ts'
import {
  type Recording,
  realScenarios,
  recordScenario,
  type Scenario,
  type StepName,
  steps,
} from './scenarios.ts'
import { captureTree } from './tree.ts'
import { openVolume } from './volumes.ts'

/** A life in this process, on a disk of its own, and what it may be taken for at each moment. */
interface Life {
  readonly scenario: Scenario
  readonly root: string
  readonly cast: Cast
  readonly judge: Judge
  /** What is held before the first call of the scenario, and after each. */
  readonly labels: readonly string[]
}

const labelsOf = ({ calls }: Recording): string[] => [
  calls[0]?.before ?? '',
  ...calls.map(({ after }) => after),
]

async function begin(life: Life): Promise<CredentialStore> {
  const store = await openCredentialStore(path.join(life.root, stateDirectory))
  for (const [index, name] of life.scenario.prelude.entries())
    steps[name](store, life.cast, index + 1)
  return store
}

/** What is wrong with what the disk holds after `returned` calls, and perhaps in the middle of one. */
async function judged(life: Life, returned: number, calling: boolean): Promise<string[]> {
  const { situation, faults } = await life.judge.judge(captureTree(life.root))
  const labels = life.labels.slice(returned, returned + (calling ? 2 : 1))
  const allowed = [...labels, ...labels.map((label) => label.replace(/K\d+/, 'unknown key'))]
  if (allowed.includes(situation)) return [...faults]
  return [`held ${situation} instead of ${labels.join(' or ')}`, ...faults]
}

function judgeError(error: unknown): string[] {
  if (!isCertvendError(error, 'ERR_STORE_UNWRITABLE')) return [`it threw ${error}`]
  return error.hint === '' ? ['it threw without a hint'] : []
}

/**
 * Lives to the end, calling again after a failure.
 *
 * @param hurt runs a call under what it must bear, `heal` takes that away before the second attempt.
 */
async function endure(
  life: Life,
  hurt: (call: () => void, name: StepName) => void,
  heal: () => void,
): Promise<{ failed: boolean; wrong: string[] }> {
  const wrong: string[] = []
  const store = await begin(life)
  let failed = false
  for (const [index, name] of life.scenario.steps.entries()) {
    const call = (): void => steps[name](store, life.cast, life.scenario.prelude.length + index + 1)
    const before = life.cast.describe(store)
    try {
      if (failed) call()
      else hurt(call, name)
    } catch (error) {
      if (failed) {
        wrong.push(`${name} failed again: ${error}`)
        break
      }
      failed = true
      wrong.push(...judgeError(error).map((one) => `${name}: ${one}`))
      for (const one of await judged(life, index, true))
        wrong.push(`after ${name} failed it ${one}`)
      heal()
      if (name === 'begin' || life.cast.describe(store) === before) call()
    }
  }
  store.close()
  for (const one of await judged(life, life.scenario.steps.length, false))
    wrong.push(`in the end it ${one}`)
  return { failed, wrong }
}

/** Makes lives of `scenario` in fresh directories of `place`. */
async function livesOf(
  scenario: Scenario,
  workspace: string,
  place: string,
): Promise<{ operations: number; next(): Life }> {
  const recording = await recordScenario(scenario, workspace, createCast())
  return {
    operations: recording.calls.reduce((sum, call) => sum + call.operations.length, 0),
    next() {
      const root = fs.mkdtempSync(path.join(place, 'life-'))
      const cast = createCast()
      const judge = createJudge(fs.mkdtempSync(path.join(workspace, 'judged-')), cast)
      return { scenario, root, cast, judge, labels: labelsOf(recording) }
    },
  }
}

const allErrors: readonly string[] = ['ENOSPC', 'EIO', 'EROFS', 'EACCES', 'EMFILE', 'EDQUOT']

/** Every operation of every scenario fails once with each of `errors`. */
export async function sweepErrors(workspace: string, errors = allErrors): Promise<Sweep> {
  const failures: string[] = []
  let tried = 0
  for (const scenario of realScenarios) {
    const { operations, next } = await livesOf(scenario, workspace, workspace)
    for (let place = 0; place < operations; place++)
      for (const code of errors) {
        tried++
        const life = next()
        let done = 0
        let failing = ''
        const interrupt = (operation: Operation): void => {
          if (done++ !== place) return
          failing = sentence(operation)
          throw Object.assign(new Error(`${code}: injected`), { code })
        }
        const hurt = (call: () => void): void => void record(life.root, call, interrupt)
        const { wrong } = await endure(life, hurt, () => {})
        for (const one of wrong) failures.push(`${scenario.name}, ${code} at ${failing}: ${one}`)
        fs.rmSync(life.root, { recursive: true })
      }
  }
  return { name: 'errors at every operation', tried, failures, detail: errors.join(', ') }
}

const page = 4096

/** A disk with room for nothing, for one page or file, for two, and so on until all fits. */
export async function sweepFullDisks(
  kind: 'tmpfs size' | 'tmpfs inodes' | 'ext4 blocks',
  workspace: string,
): Promise<Sweep> {
  const failures: string[] = []
  let tried = 0
  const roomy = 'size=64m,nr_inodes=10000'
  const volume =
    kind === 'ext4 blocks' ? openVolume('ext4', workspace) : openVolume('tmpfs', workspace, roomy)
  const filler = path.join(volume.directory, 'filler')
  const fill = (room: number): void => {
    const { blocks, bfree, files, ffree, bsize } = fs.statfsSync(volume.directory)
    if (kind === 'tmpfs size') volume.remount(`size=${(blocks - bfree + room) * page}`)
    else if (kind === 'tmpfs inodes') volume.remount(`nr_inodes=${files - ffree + room}`)
    else fillUp(filler, bsize, room)
  }
  const relieve = (): void => {
    if (kind === 'ext4 blocks') fs.rmSync(filler, { force: true })
    else volume.remount(roomy)
  }
  // A tmpfs of size 0 would be one without a limit.
  fs.writeFileSync(path.join(volume.directory, 'ballast'), 'one page')
  try {
    for (const scenario of realScenarios) {
      const { next } = await livesOf(scenario, workspace, volume.directory)
      let failed = true
      for (let room = 0; failed; room++) {
        tried++
        const life = next()
        let full = false
        const hurt = (call: () => void): void => {
          if (!full) fill(room)
          full = true
          call()
        }
        const outcome = await endure(life, hurt, relieve)
        failed = outcome.failed
        for (const one of outcome.wrong) failures.push(`${scenario.name}, room for ${room}: ${one}`)
        relieve()
        fs.rmSync(life.root, { recursive: true })
      }
    }
  } finally {
    volume.close()
  }
  return { name: `full disk, ${kind}`, tried, failures, detail: 'room for nothing to room for all' }
}

/** Takes all blocks but `room`. */
function fillUp(file: string, blockSize: number, room: number): void {
  const descriptor = fs.openSync(file, 'wx')
  try {
    for (const size of [1024 * 1024, blockSize])
      try {
        for (;;) fs.writeSync(descriptor, Buffer.alloc(size, 1))
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error
      }
    fs.fsyncSync(descriptor)
    fs.ftruncateSync(descriptor, fs.fstatSync(descriptor).size - room * blockSize)
    fs.fsyncSync(descriptor)
  } finally {
    fs.closeSync(descriptor)
  }
}

class PowerCut extends Error {}

/**
 * The power goes after each operation of each scenario, on a real disk.
 *
 * @param how `syncs: false` leaves every sync out, to show that the cut is one.
 */
export async function sweepPowerCuts(
  kind: string,
  workspace: string,
  { options, syncs = true }: { options?: string; syncs?: boolean } = {},
): Promise<Sweep> {
  const volume = openVolume(kind, workspace, options)
  const failures: string[] = []
  let tried = 0
  try {
    for (const scenario of realScenarios) {
      const { operations, next } = await livesOf(scenario, workspace, volume.directory)
      for (let place = 0; place <= operations; place++) {
        tried++
        const life = next()
        syncDirectory(volume.directory)
        const { returned, calling, last } = await (syncs
          ? liveUntil(life, place)
          : withoutSyncs(() => liveUntil(life, place)))
        volume.cut()
        volume.reboot()
        for (const one of await judged(life, returned, calling))
          failures.push(`${scenario.name}, power cut after operation ${place} (${last}): ${one}`)
        fs.rmSync(life.root, { recursive: true })
      }
    }
  } finally {
    volume.close()
  }
  const name = `power cuts, ${[kind, options].filter(Boolean).join(' ')}`
  return { name, tried, failures, detail: 'one after each operation' }
}

async function withoutSyncs<T>(action: () => Promise<T>): Promise<T> {
  const { fsyncSync } = fs
  fs.fsyncSync = () => {}
  try {
    return await action()
  } finally {
    fs.fsyncSync = fsyncSync
  }
}

/** Lives until `place` operations are done; from then on none is. */
async function liveUntil(
  life: Life,
  place: number,
): Promise<{ returned: number; calling: boolean; last: string }> {
  const store = await begin(life)
  let done = 0
  let last = 'nothing'
  const interrupt = (operation: Operation): void => {
    if (done === place) throw new PowerCut()
    done++
    last = sentence(operation)
  }
  let returned = 0
  let calling = false
  for (const name of life.scenario.steps)
    try {
      const serial = life.scenario.prelude.length + returned + 1
      record(life.root, () => steps[name](store, life.cast, serial), interrupt)
      returned++
    } catch {
      calling = true
      break
    }
  store.close()
  return { returned, calling, last }
}

function syncDirectory(directory: string): void {
  const descriptor = fs.openSync(directory, 'r')
  fs.fsyncSync(descriptor)
  fs.closeSync(descriptor)
}
