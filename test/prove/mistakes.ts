/**
 * The classic mistakes, each put into a true recording: what the store would have done to the disk
 * had it been written that way. A proof that does not catch them proves nothing.
 */
import path from 'node:path'
import { stateDirectory } from './judgement.ts'
import type { Operation } from './recording.ts'
import type { Call, Change } from './scenarios.ts'

export interface Mistake {
  readonly name: string
  /** The scenario in which it is made. */
  readonly scenario: string
  /** Changes the calls of the recording; `files` tells which paths are plain files. */
  readonly make?: (calls: readonly Call[], files: ReadonlySet<string>) => readonly Call[]
  /** Changes what a process does that goes on after a kill. */
  readonly another?: Change
}

type Make = NonNullable<Mistake['make']>

const everywhere =
  (change: Change): Make =>
  (calls, files) =>
    calls.map((call) => ({ ...call, operations: change(call.operations, files) }))

const inCall =
  (name: string, change: Change): Make =>
  (calls, files) =>
    calls.map((call) =>
      call.name === name ? { ...call, operations: change(call.operations, files) } : call,
    )

const at = (...names: string[]): string => path.join(stateDirectory, ...names)
const isLive = (name: string): boolean => name === at('current')
const isGeneration = (name: string): boolean => /generations\/\d{10}$/.test(name)

/** Takes out what `chosen` chooses and puts it back in after the first that `behind` chooses. */
function moveBehind(
  operations: readonly Operation[],
  chosen: (operation: Operation) => boolean,
  behind: (operation: Operation) => boolean,
): Operation[] {
  const moved = operations.filter(chosen)
  const rest = operations.filter((operation) => !chosen(operation))
  const place = rest.findIndex(behind) + 1
  return [...rest.slice(0, place), ...moved, ...rest.slice(place)]
}

const unlinkThenLink: Change = (operations) => {
  const links = new Map(
    operations.flatMap((one) => (one.do === 'symlink' ? [[one.path, one.target] as const] : [])),
  )
  return operations.flatMap((one): Operation[] => {
    const target = one.do === 'rename' ? links.get(one.from) : undefined
    if (one.do !== 'rename' || target === undefined || !isLive(one.to)) return [one]
    return [
      { do: 'unlink', path: one.to },
      { do: 'symlink', path: one.to, target },
      { do: 'unlink', path: one.from },
    ]
  })
}

const openThenChmod: Change = (operations) =>
  operations.flatMap((one): Operation[] => {
    if (!('path' in one) || !one.path.startsWith(at('generations'))) return [one]
    if (one.do === 'create') return [{ ...one, mode: 0o644 }]
    if (one.do === 'write') return [one, { do: 'chmod', path: one.path, mode: 0o600 }]
    return [one]
  })

/** The new files renamed over the old ones, in the directory that `current` always names. */
const fileByFile: Change = () => {
  const [old, next] = ['0000000001', '0000000002'].map((one) => at('generations', one))
  if (!old || !next) return []
  const names = ['private-key.pem', 'certificate.pem', 'trust-anchors.pem', 'credential.json']
  return [
    ...names.flatMap((name): Operation[] => [
      { do: 'rename', from: path.join(next, name), to: path.join(old, name) },
      { do: 'sync', path: old },
    ]),
    { do: 'unlink', path: at('pending') },
    { do: 'sync', path: at() },
    { do: 'rmdir', path: next },
  ]
}

/** `request.json` emptied and written anew instead of being replaced. */
const inPlace: Change = (operations) => {
  const renamed = operations.find((one) => one.do === 'rename')
  const written = operations.find((one) => one.do === 'write')
  if (renamed?.do !== 'rename' || written?.do !== 'write') return [...operations]
  return [
    { do: 'truncate', path: renamed.to, length: 0 },
    { ...written, path: renamed.to },
    { do: 'sync', path: renamed.to },
  ]
}

/** Only what this process wrote is synced; what a killed one left is taken for durable. */
const ownWritesOnly: Change = (operations) => {
  const written = new Set<string>()
  return operations.filter((one) => {
    if (one.do === 'sync') return written.delete(one.path)
    const name = 'to' in one ? one.to : one.path
    written.add(/^(write|chmod)$/.test(one.do) ? name : path.dirname(name))
    return true
  })
}

const reportedEarly: Make = (calls) =>
  calls.map((call) => ({
    ...call,
    reported: call.operations.findLastIndex(({ do: what }) => what === 'sync'),
  }))

export const mistakes: readonly Mistake[] = [
  {
    name: 'no sync of files',
    scenario: 'first boot',
    make: everywhere((operations, files) =>
      operations.filter((one) => one.do !== 'sync' || !files.has(one.path)),
    ),
  },
  {
    name: 'no sync of directories',
    scenario: 'renewal',
    make: everywhere((operations, files) =>
      operations.filter((one) => one.do !== 'sync' || files.has(one.path)),
    ),
  },
  {
    name: 'no sync of the parents of a new state directory',
    scenario: 'first boot',
    make: everywhere((operations) =>
      operations.filter((one) => one.do !== 'sync' || one.path.startsWith(stateDirectory)),
    ),
  },
  {
    name: 'unlink, then symlink, instead of a rename',
    scenario: 'renewal',
    make: inCall('promote', unlinkThenLink),
  },
  { name: 'chmod after the write', scenario: 'first boot', make: everywhere(openThenChmod) },
  {
    name: 'key and certificate replaced one by one',
    scenario: 'renewal',
    make: inCall('promote', fileByFile),
  },
  { name: 'success reported before the last sync', scenario: 'renewal', make: reportedEarly },
  {
    name: 'current switched before its generation is synced',
    scenario: 'first boot',
    make: inCall('issue', (operations) =>
      moveBehind(
        operations,
        (one) => one.do === 'sync' && isGeneration(one.path),
        (one) => one.do === 'rename' && isLive(one.to),
      ),
    ),
  },
  {
    name: 'old generation removed before the switch is synced',
    scenario: 'renewal',
    make: inCall('promote', (operations) =>
      moveBehind(
        operations,
        (one) => one.do === 'sync',
        (one) => one.do === 'rmdir',
      ),
    ),
  },
  {
    name: 'request.json overwritten in place',
    scenario: 'first boot, request recorded',
    make: (calls, files) =>
      calls.map((call, index) =>
        call.name === 'recordRequest' && calls[index - 1]?.name === 'recordRequest'
          ? { ...call, operations: inPlace(call.operations, files) }
          : call,
      ),
  },
  {
    name: 'what a killed process wrote taken for durable',
    scenario: 'renewal',
    another: ownWritesOnly,
  },
]
