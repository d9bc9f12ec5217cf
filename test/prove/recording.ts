/**
 * Records what synchronous code does to the file system, with names, data and order.
 *
 * The methods of `node:fs` are replaced while the code runs. The set is closed: a method that is not
 * known here ends the recording with an error, so that no operation of a later version goes unseen.
 */
import fs from 'node:fs'
import path from 'node:path'
import { plainName } from './tree.ts'

/** One operation; paths are relative to the disk's root. */
export type Operation =
  | { readonly do: 'create'; readonly path: string; readonly mode: number }
  | { readonly do: 'write'; readonly path: string; readonly at: number; readonly data: Buffer }
  | { readonly do: 'truncate'; readonly path: string; readonly length: number }
  | { readonly do: 'sync'; readonly path: string }
  | { readonly do: 'rename'; readonly from: string; readonly to: string }
  | { readonly do: 'link'; readonly from: string; readonly to: string }
  | { readonly do: 'symlink'; readonly path: string; readonly target: string }
  | { readonly do: 'unlink'; readonly path: string }
  | { readonly do: 'mkdir'; readonly path: string; readonly mode: number }
  | { readonly do: 'rmdir'; readonly path: string }
  | { readonly do: 'chmod'; readonly path: string; readonly mode: number }

type Method = (...parameters: never[]) => unknown
type Methods = Record<string, Method>

const reading = new Set([
  'existsSync',
  'fstatSync',
  'lstatSync',
  'readFileSync',
  'readdirSync',
  'readlinkSync',
  'statSync',
])

/** Called before each recorded operation, and able to fail it. */
export type Interruption = (operation: Operation) => void

/**
 * Runs `action` and tells what it did below `root`.
 *
 * @param interrupt sees each operation before it is done; what it throws, the code under test gets.
 * @throws when the code used a method of `node:fs` that is not known here.
 */
export function record<T>(
  root: string,
  action: () => T,
  interrupt: Interruption = () => {},
): { result: T; operations: Operation[] } {
  const operations: Operation[] = []
  const unknown: string[] = []
  const patched = fs as unknown as Methods
  const original: Methods = {}
  for (const [method, { value }] of Object.entries(Object.getOwnPropertyDescriptors(fs)))
    if (typeof value === 'function' && !/^[A-Z_]/.test(method)) original[method] = value as Method
  const promises = Object.getOwnPropertyDescriptor(fs, 'promises') as PropertyDescriptor
  /** By descriptor; nothing for what lies outside of the disk. */
  const files = new Map<number, { path: string; size: number } | undefined>()
  let depth = 0

  const refuse = (method: string): never => {
    unknown.push(method)
    throw new Error(`fs.${method} is not known to the recorder`)
  }
  const call = (method: string, parameters: unknown[]): unknown =>
    (original[method] as (...all: unknown[]) => unknown)(...parameters)
  const name = (target: unknown): string => {
    const relative = path.relative(root, String(target))
    if (relative.startsWith('..')) throw new Error(`${target} lies outside of the recorded disk`)
    return relative
  }
  const file = (descriptor: unknown): { path: string; size: number } => {
    const found = files.get(descriptor as number)
    if (!found) throw new Error(`descriptor ${descriptor} was opened outside of the recording`)
    return found
  }
  const exists = (target: unknown): boolean =>
    call('lstatSync', [target, { throwIfNoEntry: false }]) !== undefined
  const done = (operation: Operation, parameters: unknown[], method: string): unknown => {
    interrupt(operation)
    const result = call(method, parameters)
    operations.push(operation)
    return result
  }

  function open(parameters: unknown[]): unknown {
    const [target, flags = 'r', mode = 0o666] = parameters as [string, string | number, number]
    const { O_CREAT, O_TRUNC } = fs.constants
    const creates = typeof flags === 'string' ? /[wa]/.test(flags) : (flags & O_CREAT) !== 0
    const truncates = typeof flags === 'string' ? flags.startsWith('w') : (flags & O_TRUNC) !== 0
    const before = exists(target)
    let descriptor: unknown
    if (creates && !before)
      descriptor = done({ do: 'create', path: name(target), mode }, parameters, 'openSync')
    else if (creates && truncates)
      descriptor = done({ do: 'truncate', path: name(target), length: 0 }, parameters, 'openSync')
    else descriptor = call('openSync', parameters)
    const { size } = call('fstatSync', [descriptor]) as fs.Stats
    const inside = !path.relative(root, String(target)).startsWith('..')
    files.set(descriptor as number, inside ? { path: name(target), size } : undefined)
    return descriptor
  }

  function write(method: string, parameters: unknown[]): unknown {
    const [descriptor, content] = parameters as [number, string | Buffer]
    const target = file(descriptor)
    const data = Buffer.from(content as string)
    const result = done(
      { do: 'write', path: target.path, at: target.size, data },
      parameters,
      method,
    )
    target.size += data.length
    return result
  }

  const changing: Record<string, (method: string, parameters: unknown[]) => unknown> = {
    openSync: (_, parameters) => open(parameters),
    closeSync(method, parameters) {
      files.delete(parameters[0] as number)
      return call(method, parameters)
    },
    writeFileSync(method, parameters) {
      if (typeof parameters[0] !== 'number')
        throw new Error('writeFileSync by name is not recorded')
      return write(method, parameters)
    },
    writeSync: write,
    ftruncateSync: (method, [descriptor, length = 0]) =>
      done(
        { do: 'truncate', path: file(descriptor).path, length: length as number },
        [descriptor, length],
        method,
      ),
    // The parents of the disk are durable already.
    fsyncSync: (method, [descriptor]) =>
      files.has(descriptor as number) && files.get(descriptor as number) === undefined
        ? call(method, [descriptor])
        : done({ do: 'sync', path: file(descriptor).path }, [descriptor], method),
    fchmodSync: (method, [descriptor, mode]) =>
      done(
        { do: 'chmod', path: file(descriptor).path, mode: mode as number },
        [descriptor, mode],
        method,
      ),
    chmodSync: (method, [target, mode]) =>
      done({ do: 'chmod', path: name(target), mode: mode as number }, [target, mode], method),
    renameSync: (method, [from, to]) =>
      done({ do: 'rename', from: name(from), to: name(to) }, [from, to], method),
    linkSync: (method, [from, to]) =>
      done({ do: 'link', from: name(from), to: name(to) }, [from, to], method),
    symlinkSync: (method, [target, at]) =>
      done({ do: 'symlink', path: name(at), target: String(target) }, [target, at], method),
    unlinkSync: (method, [target]) =>
      exists(target)
        ? done({ do: 'unlink', path: name(target) }, [target], method)
        : call(method, [target]),
    rmSync: (method, [target, options]) =>
      exists(target)
        ? done({ do: 'unlink', path: name(target) }, [target, options], method)
        : call(method, [target, options]),
    mkdirSync: (method, [target, mode = 0o777]) =>
      done({ do: 'mkdir', path: name(target), mode: mode as number }, [target, mode], method),
    rmdirSync: (method, [target]) => done({ do: 'rmdir', path: name(target) }, [target], method),
  }

  for (const method of Object.keys(original))
    patched[method] = (...parameters: unknown[]) => {
      if (depth > 0) return call(method, parameters)
      const known = Object.hasOwn(changing, method) ? changing[method] : undefined
      if (!known && !reading.has(method)) refuse(method)
      depth++
      try {
        return known ? known(method, parameters) : call(method, parameters)
      } finally {
        depth--
      }
    }
  Object.defineProperty(fs, 'promises', { ...promises, get: () => refuse('promises') })
  try {
    const result = action()
    if (unknown.length > 0)
      throw new Error(`not known to the recorder: fs.${unknown.join(', fs.')}`)
    return { result, operations }
  } finally {
    Object.assign(patched, original)
    Object.defineProperty(fs, 'promises', promises)
  }
}

/** One line for people; random parts of names are left out. */
export function sentence(operation: Operation): string {
  const plain = (name: string): string => name.split('/').map(plainName).join('/') || '.'
  switch (operation.do) {
    case 'rename':
    case 'link':
      return `${operation.do} ${plain(operation.from)} ${plain(operation.to)}`
    case 'symlink':
      return `symlink ${operation.target} ${plain(operation.path)}`
    case 'create':
    case 'mkdir':
    case 'chmod':
      return `${operation.do} ${plain(operation.path)} ${operation.mode.toString(8).padStart(4, '0')}`
    case 'write':
      return `write ${plain(operation.path)} ${operation.data.length}`
    case 'truncate':
      return `truncate ${plain(operation.path)} ${operation.length}`
    default:
      return `${operation.do} ${plain(operation.path)}`
  }
}
