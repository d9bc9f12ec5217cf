/**
 * A disk on which nothing is durable before it is synced, and the states that a crash may leave.
 *
 * After ALICE (Pillai et al., "All File Systems Are Not Created Equal", OSDI 2014): a sync of a file
 * makes its data and mode durable, not its name; a sync of a directory makes its names durable, not
 * what they name. Everything else may be there after a crash or not, each piece on its own.
 */
import path from 'node:path'
import type { Operation } from './recording.ts'
import { type Entry, plainName, type Tree } from './tree.ts'

interface FileNode {
  readonly kind: 'file'
  data: Buffer
  mode: number
  durable: { data: Buffer; mode: number }
}
interface DirectoryNode {
  readonly kind: 'directory'
  mode: number
  durableMode: number
  /** Names as the running system sees them. */
  readonly names: Map<string, Node>
  /** Names as of the last sync. */
  readonly durable: Map<string, Node>
}
interface LinkNode {
  readonly kind: 'link'
  readonly target: string
}
type Node = FileNode | DirectoryNode | LinkNode

/** One name set or (without a node) removed. */
interface NameChange {
  readonly directory: DirectoryNode
  readonly name: string
  readonly node?: Node
}
/** The name changes of one operation, not yet durable; a rename has two, which go together. */
type Update = readonly NameChange[]

/**
 * What a crash may do:
 *
 * - `killed`: only the process dies; all that was done is there.
 * - `ordered`: the power goes; names become durable in order (ext4, xfs), data on its own.
 * - `weak`: the power goes; names and data become durable each on their own, a rename perhaps as a
 *   second name first.
 */
export type Model = 'killed' | 'ordered' | 'weak'

export interface Disk {
  apply(operation: Operation): void
  /** Every state that a crash now may leave. */
  crashStates(model: Model): Iterable<Tree>
}

/** More than this at one point is refused rather than sampled. */
const mostStates = 200_000

const newDirectory = (mode: number): DirectoryNode => ({
  kind: 'directory',
  mode,
  durableMode: mode,
  names: new Map(),
  durable: new Map(),
})

/** A disk on which `tree`, and nothing else, is durable. */
export function createDisk(tree: Tree = new Map()): Disk {
  const root = newDirectory(0o755)
  let updates: Update[] = []

  function find(name: string): Node {
    let node: Node = root
    for (const part of name === '' ? [] : name.split('/')) {
      const next: Node | undefined = node.kind === 'directory' ? node.names.get(part) : undefined
      if (!next) throw new Error(`${name} is not on the disk`)
      node = next
    }
    return node
  }
  function place(name: string): { directory: DirectoryNode; name: string } {
    const parent = path.dirname(name)
    const directory = find(parent === '.' ? '' : parent)
    if (directory.kind !== 'directory') throw new Error(`${parent} is not a directory`)
    return { directory, name: path.basename(name) }
  }
  function update(...changes: Update): void {
    for (const { directory, name, node } of changes)
      if (node) directory.names.set(name, node)
      else directory.names.delete(name)
    updates.push(changes)
  }
  function file(name: string): FileNode {
    const node = find(name)
    if (node.kind !== 'file') throw new Error(`${name} is not a file`)
    return node
  }
  function sync(node: Node): void {
    if (node.kind === 'file') node.durable = { data: node.data, mode: node.mode }
    if (node.kind !== 'directory') return
    node.durableMode = node.mode
    for (const changes of updates)
      for (const { directory, name, node: named } of changes)
        if (directory === node) {
          if (named) node.durable.set(name, named)
          else node.durable.delete(name)
        }
    updates = updates
      .map((changes) => changes.filter(({ directory }) => directory !== node))
      .filter((changes) => changes.length > 0)
  }
  function apply(operation: Operation): void {
    switch (operation.do) {
      case 'create': {
        const { mode } = operation
        const data = Buffer.alloc(0)
        const node: Node = { kind: 'file', data, mode, durable: { data, mode } }
        update({ ...place(operation.path), node })
        break
      }
      case 'mkdir':
        update({ ...place(operation.path), node: newDirectory(operation.mode) })
        break
      case 'symlink':
        update({ ...place(operation.path), node: { kind: 'link', target: operation.target } })
        break
      case 'link':
        update({ ...place(operation.to), node: find(operation.from) })
        break
      case 'rename':
        update({ ...place(operation.to), node: find(operation.from) }, place(operation.from))
        break
      case 'unlink':
      case 'rmdir':
        find(operation.path)
        update(place(operation.path))
        break
      case 'write': {
        const node = file(operation.path)
        const { at, data } = operation
        const grown = Buffer.alloc(Math.max(node.data.length, at + data.length))
        node.data.copy(grown)
        data.copy(grown, at)
        node.data = grown
        break
      }
      case 'truncate': {
        const node = file(operation.path)
        node.data = Buffer.concat([node.data, Buffer.alloc(operation.length)], operation.length)
        break
      }
      case 'chmod': {
        const node = find(operation.path)
        if (node.kind !== 'link') node.mode = operation.mode
        break
      }
      case 'sync':
        sync(find(operation.path))
    }
  }

  function* choices(model: Model): Iterable<Update> {
    if (model === 'killed') yield updates.flat()
    else if (model === 'ordered')
      for (let kept = 0; kept <= updates.length; kept++) yield updates.slice(0, kept).flat()
    else {
      const options = updates.map((changes): Update[] =>
        changes.length === 2 ? [[], changes, changes.slice(0, 1)] : [[], changes],
      )
      for (const taken of product(options)) yield taken.flat()
    }
  }

  function* crashStates(model: Model): Iterable<Tree> {
    const seen = new Set<string>()
    for (const changes of choices(model)) {
      const changed = new Map<DirectoryNode, Map<string, Node>>()
      for (const { directory, name, node } of changes) {
        const names = changed.get(directory) ?? new Map(directory.durable)
        changed.set(directory, names)
        if (node) names.set(name, node)
        else names.delete(name)
      }
      const key = [...changed].map(([directory, names]) => `${identity(directory)}:${keyOf(names)}`)
      if (seen.has(key.join('|'))) continue
      seen.add(key.join('|'))
      yield* fill((directory) => changed.get(directory) ?? directory.durable, model)
    }
  }

  function* fill(
    entries: (directory: DirectoryNode) => ReadonlyMap<string, Node>,
    model: Model,
  ): Iterable<Tree> {
    const found: { name: string; options: readonly Entry[] }[] = []
    const walk = (directory: DirectoryNode, prefix: string): void => {
      for (const [last, node] of entries(directory)) {
        const name = path.join(prefix, last)
        found.push({ name, options: variants(node, model) })
        if (node.kind === 'directory') walk(node, name)
      }
    }
    walk(root, '')
    const options = found.map((one) => one.options)
    for (const kept of product(options))
      yield new Map(found.map(({ name }, index) => [name, kept[index] as Entry]))
  }

  for (const [name, entry] of tree) {
    const { directory, name: last } = place(name)
    const node = durableNode(entry)
    directory.names.set(last, node)
    directory.durable.set(last, node)
  }
  return { apply, crashStates }
}

const identities = new WeakMap<Node, number>()
let lastIdentity = 0

function identity(node: Node): number {
  const known = identities.get(node) ?? ++lastIdentity
  identities.set(node, known)
  return known
}

/** Equal for names of a directory that {@link treeDigest} would not tell apart either. */
function keyOf(names: ReadonlyMap<string, Node>): string {
  const lines = new Set<string>()
  for (const [name, node] of names)
    lines.add(`${plainName(name)}=${node.kind === 'link' ? node.target : identity(node)}`)
  return [...lines].sort().join(',')
}

function durableNode(entry: Entry): Node {
  switch (entry.kind) {
    case 'link':
      return entry
    case 'directory':
      return newDirectory(entry.mode)
    case 'file': {
      const { data, mode } = entry
      return { kind: 'file', data, mode, durable: { data, mode } }
    }
  }
}

const kept = new WeakMap<Node, { of: Buffer; durable: Buffer; options: readonly Buffer[] }>()

/** What may be found in a file: as synced, whole, cut short, or of the right length and never written. */
function contents(node: FileNode): readonly Buffer[] {
  const { data, durable } = node
  if (data === durable.data) return [data]
  const known = kept.get(node)
  if (known?.of === data && known.durable === durable.data) return known.options
  const half = data.subarray(0, data.length >> 1)
  const options = [
    data,
    durable.data,
    half,
    data.subarray(0, Math.max(0, data.length - 1)),
    Buffer.concat([half, Buffer.alloc(data.length - half.length)]),
    Buffer.alloc(data.length),
    Buffer.alloc(data.length, 0xa5),
  ]
  kept.set(node, { of: data, durable: durable.data, options })
  return options
}

function variants(node: Node, model: Model): readonly Entry[] {
  if (node.kind === 'link') return [node]
  if (node.kind === 'directory') {
    const modes = new Set(model === 'killed' ? [node.mode] : [node.mode, node.durableMode])
    return [...modes].map((mode) => ({ kind: 'directory', mode }))
  }
  if (model === 'killed') return [{ kind: 'file', mode: node.mode, data: node.data }]
  const modes = [...new Set([node.mode, node.durable.mode])]
  return contents(node).flatMap((data) =>
    modes.map((mode) => ({ kind: 'file', mode, data }) as const),
  )
}

/** Every way to take one of each; refuses to begin what it could not finish. */
function* product<T>(options: readonly (readonly T[])[]): Iterable<readonly T[]> {
  const size = options.reduce((all, { length }) => all * length, 1)
  if (size > mostStates) throw new RangeError(`${size} states at one point are too many to try`)
  for (let index = 0; index < size; index++) {
    let rest = index
    yield options.map((one) => {
      const taken = one[rest % one.length] as T
      rest = Math.floor(rest / one.length)
      return taken
    })
  }
}
