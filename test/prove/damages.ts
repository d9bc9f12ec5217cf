/** What a disk, an editor or a stranger may do to a state directory, and what opening it then shows. */
import path from 'node:path'
import { stateDirectory } from './judgement.ts'
import type { StepName } from './scenarios.ts'
import type { Entry, Tree } from './tree.ts'

export interface Damage {
  readonly name: string
  /** The life before. */
  readonly life: readonly StepName[]
  /** Changes the entries; names are relative to the state directory. */
  readonly change: (entries: Entries) => void
  /** What opening then shows. */
  readonly opens: string
}

interface Entries {
  get(name: string): Entry | undefined
  set(name: string, entry: Entry): void
  /** With all that is below. */
  remove(name: string): void
}

const generation = (number: number, ...names: string[]): string =>
  path.join('generations', String(number).padStart(10, '0'), ...names)
const link = (number: number): Entry => ({ kind: 'link', target: generation(number) })
const file = (text: string): Entry => ({ kind: 'file', mode: 0o600, data: Buffer.from(text) })
const directory: Entry = { kind: 'directory', mode: 0o700 }
const random = '0123456789abcdef'

function cutShort(entries: Entries, name: string): void {
  const entry = entries.get(name)
  if (entry?.kind !== 'file') throw new Error(`${name} is not there to be damaged`)
  entries.set(name, { ...entry, data: entry.data.subarray(0, entry.data.length >> 1) })
}

/** What bit rot makes of a text: `from` in it reads `to`. */
function rot(entries: Entries, name: string, from: string, to: string): void {
  const entry = entries.get(name)
  const text = entry?.kind === 'file' ? entry.data.toString() : ''
  if (!text.includes(from)) throw new Error(`${name} holds no ${from} to rot`)
  entries.set(name, { ...file(text.replace(from, to)) })
}

function move(entries: Entries, from: string, to: string): void {
  entries.set(to, entries.get(from) as Entry)
}

const oneCredential: readonly StepName[] = ['begin', 'issue']
const withRequest: readonly StepName[] = [...oneCredential, 'begin']
const withSuccessor: readonly StepName[] = [...withRequest, 'issue']

export const damages: readonly Damage[] = [
  {
    name: 'certificate in use cut short, a whole successor waits',
    life: withSuccessor,
    change: (entries) => cutShort(entries, generation(1, 'certificate.pem')),
    opens: 'current C2',
  },
  {
    name: 'private key in use gone, a whole successor waits',
    life: withSuccessor,
    change: (entries) => entries.remove(generation(1, 'private-key.pem')),
    opens: 'current C2',
  },
  {
    name: 'generation in use gone, a whole successor waits',
    life: withSuccessor,
    change: (entries) => entries.remove(generation(1)),
    opens: 'current C2',
  },
  {
    name: 'certificate in use is the successor’s',
    life: withSuccessor,
    change: (entries) =>
      move(entries, generation(2, 'certificate.pem'), generation(1, 'certificate.pem')),
    opens: 'current C2',
  },
  {
    name: 'certificate in use cut short, no other',
    life: oneCredential,
    change: (entries) => cutShort(entries, generation(1, 'certificate.pem')),
    opens: 'requested K1',
  },
  {
    name: 'credential.json gone, no other',
    life: oneCredential,
    change: (entries) => entries.remove(generation(1, 'credential.json')),
    opens: 'requested K1',
  },
  {
    name: 'a name in credential.json rotten, a whole successor waits',
    life: withSuccessor,
    change: (entries) =>
      rot(entries, generation(1, 'credential.json'), 'mqtt.example.com', 'mqtt.examqle.com'),
    opens: 'current C2',
  },
  {
    name: 'a name in credential.json rotten, no other',
    life: oneCredential,
    change: (entries) =>
      rot(entries, generation(1, 'credential.json'), '"thingName": "gate', '"thingName": "fate'),
    opens: 'requested K1',
  },
  {
    name: 'the seal of credential.json rotten, no other',
    life: oneCredential,
    change: (entries) => rot(entries, generation(1, 'credential.json'), '"digest"', '"digesu"'),
    opens: 'requested K1',
  },
  {
    name: 'the time in request.json rotten',
    life: [...withRequest, 'recordRequest'],
    change: (entries) => rot(entries, generation(2, 'request.json'), '"2026-', '"9026-'),
    opens: 'current C1, requested K2',
  },
  {
    name: 'private key in use cut short, no other',
    life: oneCredential,
    change: (entries) => cutShort(entries, generation(1, 'private-key.pem')),
    opens: 'ERR_STORE_CORRUPT',
  },
  {
    name: 'current gone',
    life: oneCredential,
    change: (entries) => entries.remove('current'),
    opens: 'current C1',
  },
  {
    name: 'current is a file',
    life: oneCredential,
    change: (entries) => entries.set('current', file('generations/0000000001')),
    opens: 'current C1',
  },
  {
    name: 'current names no generation',
    life: oneCredential,
    change: (entries) => entries.set('current', { kind: 'link', target: '/tmp' }),
    opens: 'current C1',
  },
  {
    name: 'pending names nothing',
    life: oneCredential,
    change: (entries) => entries.set('pending', link(7)),
    opens: 'current C1',
  },
  {
    name: 'pending gone on first boot',
    life: ['begin'],
    change: (entries) => entries.remove('pending'),
    opens: 'requested K1',
  },
  {
    name: 'successor cut short',
    life: withSuccessor,
    change: (entries) => cutShort(entries, generation(2, 'trust-anchors.pem')),
    opens: 'current C1, requested K2',
  },
  {
    name: 'key of a successor cut short',
    life: withRequest,
    change: (entries) => cutShort(entries, generation(2, 'private-key.pem')),
    opens: 'current C1',
  },
  {
    name: 'unfinished things everywhere',
    life: withRequest,
    change(entries) {
      entries.set(`.current.${random}`, link(9))
      entries.set(`generations/.old.${random}`, file(''))
      entries.set(generation(1, `.credential.json.${random}`), file('{'))
      entries.set(generation(2, `.request.json.${random}`), file('{'))
      entries.set(generation(5), directory)
      entries.set(generation(5, 'private-key.pem'), file(''))
      entries.set(generation(5, `.credential.json.${random}`), file('{'))
      entries.set(generation(8), file('not a directory'))
    },
    opens: 'current C1, requested K2',
  },
]

/** `tree` after `damage`. */
export function damaged(tree: Tree, damage: Damage): Tree {
  const entries = new Map(tree)
  const at = (name: string): string => path.join(stateDirectory, name)
  damage.change({
    get: (name) => entries.get(at(name)),
    set: (name, entry) => void entries.set(at(name), entry),
    remove(name) {
      for (const one of entries.keys())
        if (one === at(name) || one.startsWith(`${at(name)}/`)) entries.delete(one)
    },
  })
  return entries
}
