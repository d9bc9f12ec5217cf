/** A directory tree as a value: read from a disk, put onto one, compared by content. */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'

export type Entry =
  | { readonly kind: 'directory'; readonly mode: number }
  | { readonly kind: 'file'; readonly mode: number; readonly data: Buffer }
  | { readonly kind: 'link'; readonly target: string }

/** Entries by path relative to the root, which itself is not among them; parents come first. */
export type Tree = ReadonlyMap<string, Entry>

/** Reads what lies below `root`. */
export function captureTree(root: string): Tree {
  const tree = new Map<string, Entry>()
  const walk = (directory: string): void => {
    for (const found of fs.readdirSync(path.join(root, directory), { withFileTypes: true })) {
      const name = path.join(directory, found.name)
      const target = path.join(root, name)
      if (found.isSymbolicLink()) tree.set(name, { kind: 'link', target: fs.readlinkSync(target) })
      else {
        const mode = fs.lstatSync(target).mode & 0o7777
        if (found.isDirectory()) {
          tree.set(name, { kind: 'directory', mode })
          walk(name)
        } else tree.set(name, { kind: 'file', mode, data: fs.readFileSync(target) })
      }
    }
  }
  walk('')
  return tree
}

/** Puts `tree` into the empty directory `root`. */
export function materialise(tree: Tree, root: string): void {
  for (const [name, entry] of tree) {
    const target = path.join(root, name)
    if (entry.kind === 'link') fs.symlinkSync(entry.target, target)
    else if (entry.kind === 'directory') fs.mkdirSync(target, entry.mode)
    else fs.writeFileSync(target, entry.data, { mode: entry.mode, flag: 'wx' })
  }
}

const contents = new WeakMap<Buffer, string>()

/** SHA-256 of a file's data, computed once for each buffer. */
function contentDigest(data: Buffer): string {
  const known = contents.get(data)
  if (known) return known
  const digest = createHash('sha256').update(data).digest('hex')
  contents.set(data, digest)
  return digest
}

const unfinished = /^(\.[a-z0-9.-]+)\.[0-9a-f]{16}$/

/** A name without its random part, if it has one. */
export function plainName(name: string): string {
  let stem = name
  for (let found = unfinished.exec(stem); found; found = unfinished.exec(stem))
    stem = String(found[1])
  return stem === name ? name : `${stem}.*`
}

/**
 * Equal for trees that differ in nothing that matters: the random parts of the names of unfinished
 * things are left out, and several of one kind and content count once.
 */
export function treeDigest(tree: Tree): string {
  const lines = new Set<string>()
  for (const [name, entry] of tree) {
    const plain = name.split('/').map(plainName).join('/')
    const rest =
      entry.kind === 'link'
        ? entry.target
        : entry.kind === 'directory'
          ? entry.mode
          : `${entry.mode} ${contentDigest(entry.data)}`
    lines.add(`${plain} ${entry.kind} ${rest}`)
  }
  return createHash('sha256')
    .update([...lines].sort().join('\n'))
    .digest('hex')
}

/** What lies there, for people. */
export function listing(tree: Tree): string[] {
  return [...tree].map(([name, entry]) =>
    entry.kind === 'link'
      ? `${name} -> ${entry.target}`
      : entry.kind === 'directory'
        ? `${name}/`
        : `${name} (${entry.data.length} bytes, ${entry.mode.toString(8)})`,
  )
}
