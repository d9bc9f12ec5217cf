/** The whole proof: every scenario under every model, every damage, every mistake. */
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { damages } from './damages.ts'
import { mistakes } from './mistakes.ts'
import { type CounterExample, createProver, type ProofModel, proofModels } from './proof.ts'
import { filesOf, scenarios } from './scenarios.ts'

export interface Row {
  readonly scenario: string
  readonly operations: number
  readonly states: Partial<Record<ProofModel, number>>
  readonly failures: readonly CounterExample[]
}

export interface Bite {
  readonly mistake: string
  readonly caught?: CounterExample
}

export interface Proof {
  readonly rows: readonly Row[]
  readonly bites: readonly Bite[]
  /** Distinct states opened. */
  readonly opened: number
}

/** A directory in memory where there is one. */
export function makeWorkspace(): string {
  const memory = '/dev/shm'
  return fs.mkdtempSync(path.join(fs.existsSync(memory) ? memory : os.tmpdir(), 'certvend-prove-'))
}

/** @param tell is called with each row when it is complete. */
export async function proveAll(tell: (row: Row | Bite) => void = () => {}): Promise<Proof> {
  const workspace = makeWorkspace()
  const prover = createProver(workspace, { failures: 1 })
  const rows: Row[] = []
  const bites: Bite[] = []
  try {
    const recordings = []
    for (const scenario of scenarios) recordings.push(await prover.record(scenario))

    for (const recording of recordings) {
      const states: Row['states'] = {}
      const failures: CounterExample[] = []
      for (const model of proofModels) {
        const verdict = await prover.prove(recording, model)
        states[model] = verdict.states
        failures.push(...verdict.failures)
      }
      const operations = recording.calls.reduce((sum, call) => sum + call.operations.length, 0)
      rows.push({ scenario: recording.name, operations, states, failures })
      tell(rows.at(-1) as Row)
    }

    let mending = 0
    const failures: CounterExample[] = []
    for (const damage of damages) {
      const life = await prover.record({ name: damage.name, prelude: damage.life, steps: [] })
      const verdict = await prover.proveMending(damage, life)
      mending += verdict.states
      failures.push(...verdict.failures)
    }
    const scenario = `${damages.length} kinds of damage`
    rows.push({ scenario, operations: 0, states: { mending }, failures })
    tell(rows.at(-1) as Row)

    for (const { name, scenario, make, another } of mistakes) {
      const recording = recordings.find((one) => one.name === scenario)
      if (!recording) throw new Error(`${name}: there is no scenario ${scenario}`)
      const { prelude, calls } = recording
      const files = filesOf([...prelude, ...calls.flatMap(({ operations }) => operations)])
      const wrong = {
        ...recording,
        calls: make?.(calls, files) ?? calls,
        ...(another ? { another } : {}),
      }
      let caught: CounterExample | undefined
      for (const model of proofModels) {
        caught ??= (await prover.prove(wrong, model)).failures[0]
        if (caught) break
      }
      bites.push({ mistake: name, ...(caught ? { caught } : {}) })
      tell(bites.at(-1) as Bite)
    }
    return { rows, bites, opened: prover.opened }
  } finally {
    prover.close()
    fs.rmSync(workspace, { recursive: true, force: true })
  }
}
