/** What a store does in its life, recorded call by call. */
import { generateKeyPairSync } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import {
  type CredentialStore,
  type FileKey,
  openCredentialStore,
  type RequestRecord,
} from '@certvend/client'
import { type Cast, stateDirectory } from './judgement.ts'
import { type Operation, record } from './recording.ts'

/** One call of the store: atomic, so that a crash leaves what was before or what is after. */
export interface Call {
  readonly name: string
  readonly before: string
  readonly after: string
  readonly operations: readonly Operation[]
  /** How many operations were done when the call returned; default all. */
  readonly reported?: number
}

export interface Recording {
  readonly name: string
  /** What was done on the empty disk before. */
  readonly prelude: readonly Operation[]
  readonly calls: readonly Call[]
  /** What to make of the operations of a process that goes on after a kill; a mistake of its own. */
  readonly another?: Change
}

export type Change = (operations: readonly Operation[], files: ReadonlySet<string>) => Operation[]

/** A life: each step is one call, those before `from` are prelude. */
export interface Scenario {
  readonly name: string
  readonly prelude: readonly StepName[]
  readonly steps: readonly StepName[]
}

const requestRecord = (attempts: number): RequestRecord => ({
  dialect: 'certvend',
  urlHash: '0'.repeat(64),
  sentAt: new Date(Date.UTC(2026, 11, 1)),
  attempts,
})

/** A key that came with a certificate, as from the vending machines of old. */
function servedKey(): FileKey {
  const { publicKey, privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  return {
    publicKey,
    sign: () => Promise.reject(new Error('the store does not sign')),
    toPem: () => privateKey.export({ type: 'pkcs8', format: 'pem' }).toString(),
  }
}

/** One step; what is made up in it depends on `serial` only. */
type Step = (store: CredentialStore, cast: Cast, serial: number) => void

export const steps = {
  begin: (store, cast) => {
    cast.nameKey(store.begin().privateKey.publicKey)
  },
  recordRequest: (store, _, serial) => store.recordRequest(requestRecord(serial)),
  issue: (store, cast) => {
    const { privateKey } = store.pending() as NonNullable<
      ReturnType<CredentialStore['pending']>
    > & {
      state: 'requested'
    }
    store.issue(cast.answer(privateKey.publicKey))
  },
  issueServed: (store, cast) => {
    const key = servedKey()
    cast.nameKey(key.publicKey)
    store.issue(cast.answer(key.publicKey), key)
  },
  promote: (store) => {
    store.promote()
  },
  discard: (store) => store.discard(),
} as const satisfies Record<string, Step>

export type StepName = keyof typeof steps

export const scenarios: readonly Scenario[] = [
  { name: 'first boot', prelude: [], steps: ['begin', 'issue'] },
  {
    name: 'first boot, request recorded',
    prelude: [],
    steps: ['begin', 'recordRequest', 'recordRequest', 'issue'],
  },
  { name: 'renewal', prelude: ['begin', 'issue'], steps: ['begin', 'issue', 'promote'] },
  {
    name: 'renewal, request recorded',
    prelude: ['begin', 'issue'],
    steps: ['begin', 'recordRequest', 'recordRequest', 'issue', 'promote'],
  },
  {
    name: 'renewal after renewal',
    prelude: ['begin', 'issue', 'begin', 'issue', 'promote'],
    steps: ['begin', 'issue', 'promote'],
  },
  {
    name: 'first boot, key served',
    prelude: ['begin', 'recordRequest'],
    steps: ['issueServed'],
  },
  {
    name: 'renewal, key served',
    prelude: ['begin', 'issue', 'begin', 'recordRequest'],
    steps: ['issueServed', 'promote'],
  },
  {
    name: 'discard of the first request',
    prelude: ['begin'],
    steps: ['discard', 'begin', 'issue'],
  },
  {
    name: 'discard of a request',
    prelude: ['begin', 'issue', 'begin'],
    steps: ['discard', 'begin', 'issue', 'promote'],
  },
  {
    name: 'discard of a successor',
    prelude: ['begin', 'issue', 'begin', 'issue'],
    steps: ['discard', 'begin', 'issue', 'promote'],
  },
]

/** What real processes live through under kills and faults. */
export const realScenarios: readonly Scenario[] = [
  { name: 'first boot', prelude: [], steps: ['begin', 'issue'] },
  { name: 'renewal', prelude: ['begin', 'issue'], steps: ['begin', 'issue', 'promote'] },
  { name: 'discard', prelude: ['begin', 'issue', 'begin'], steps: ['discard'] },
]

/** Lives through `scenario` in a directory below `workspace`. */
export async function recordScenario(
  scenario: Scenario,
  workspace: string,
  cast: Cast,
): Promise<Recording> {
  const root = fs.mkdtempSync(path.join(workspace, 'life-'))
  const store = await openCredentialStore(path.join(root, stateDirectory))
  const prelude: Operation[] = []
  const calls: Call[] = []
  let serial = 0
  for (const name of [...scenario.prelude, ...scenario.steps]) {
    const before = cast.describe(store)
    const { operations } = record(root, () => steps[name](store, cast, ++serial))
    if (serial <= scenario.prelude.length) prelude.push(...operations)
    else calls.push({ name, before, after: cast.describe(store), operations })
  }
  store.close()
  fs.rmSync(root, { recursive: true })
  return { name: scenario.name, prelude, calls }
}

/** The paths of plain files in `operations`. */
export const filesOf = (operations: readonly Operation[]): ReadonlySet<string> =>
  new Set(operations.flatMap((one) => (one.do === 'create' ? [one.path] : [])))
