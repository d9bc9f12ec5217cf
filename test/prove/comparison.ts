/** What one process does to the disk from opening to closing, recorded and traced. */
import path from 'node:path'
import { openCredentialStore } from '@certvend/client'
import { stateDirectory } from './judgement.ts'
import { newRoot, type Sweep, setStage } from './kills.ts'
import { type Operation, record, sentence } from './recording.ts'
import { type Scenario, steps } from './scenarios.ts'
import { operationsOf, traceLife } from './tracing.ts'

/** A process of its own opens the store and makes the calls of `scenario`. */
export async function recordProcess(
  scenario: Scenario,
  workspace: string,
): Promise<readonly Operation[]> {
  const stage = await setStage(scenario, workspace)
  const root = newRoot(stage, workspace)
  const opening = record(root, () => openCredentialStore(path.join(root, stateDirectory)))
  const store = await opening.result
  const operations = [...opening.operations]
  for (const [index, name] of scenario.steps.entries()) {
    const serial = stage.known + index + 1
    operations.push(...record(root, () => steps[name](store, stage.cast, serial)).operations)
  }
  store.close()
  return operations
}

/** The recorder saw of a life what strace sees of a process that lives the same. */
export async function compareTraces(scenario: Scenario, workspace: string): Promise<Sweep> {
  const recorded = (await recordProcess(scenario, workspace)).map(sentence)
  const stage = await setStage(scenario, workspace)
  const root = newRoot(stage, workspace)
  const { calls } = await traceLife(root, stage.known, scenario.steps)
  const traced = operationsOf(calls, root, stage.start.keys())
  const failures: string[] = []
  for (let index = 0; index < Math.max(recorded.length, traced.length); index++)
    if (recorded[index] !== traced[index])
      failures.push(`operation ${index + 1}: recorded ${recorded[index]}, traced ${traced[index]}`)
  return {
    name: `recorded and traced, ${scenario.name}`,
    tried: recorded.length,
    failures,
    detail: `of ${calls.length} system calls on the store`,
  }
}
