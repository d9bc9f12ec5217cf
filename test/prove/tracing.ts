/** A real process under strace: what it asks of the file system, and what becomes of it when it is hurt. */
import { spawn, spawnSync } from 'node:child_process'
import { createPublicKey } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Cast } from './judgement.ts'
import { type Line, markers } from './lines.ts'
import { sentence } from './recording.ts'
import type { StepName } from './scenarios.ts'

/** Why strace cannot be used here, if it cannot. */
export function straceMissing(): string | undefined {
  if (process.platform !== 'linux') return 'strace is Linux'
  const { error, status, stderr } = spawnSync('strace', ['-o', '/dev/null', 'true'], {
    encoding: 'utf8',
  })
  if (error) return 'strace is not installed'
  return status === 0 ? undefined : `strace may not trace here: ${stderr.trim().split('\n')[0]}`
}

const here = path.dirname(fileURLToPath(import.meta.url))
/** Compiled, wherever this file runs from. */
const lifeFile = here.endsWith(path.join('dist', 'prove'))
  ? path.join(here, 'life.js')
  : path.join(here, '..', 'dist', 'prove', 'life.js')

export interface Life {
  readonly lines: readonly Line[]
  readonly signal: NodeJS.Signals | null
  /** The system calls that strace traced. */
  readonly trace: string
  readonly code: number | null
  readonly errors: string
}

const base = ['-qq', '-y', '-s', '250', '-o'] as const

/** A fault that fell on libuv's own files may leave a process waiting for ever. */
const longestLifeMs = 20_000

/** One life in `root`, under strace with `options`; `known` keys were named before it. */
export function live(
  root: string,
  known: number,
  names: readonly StepName[],
  options: readonly string[],
): Promise<Life> {
  const log = `${root}.strace`
  return new Promise((resolve, reject) => {
    const child = spawn(
      'strace',
      [...base, log, ...options, process.execPath, lifeFile, root, String(known), ...names],
      {
        stdio: ['ignore', 'pipe', 'pipe'],
        env: { PATH: process.env.PATH, UV_THREADPOOL_SIZE: '1' },
        detached: true,
      },
    )
    const late = setTimeout(() => child.pid && process.kill(-child.pid, 'SIGKILL'), longestLifeMs)
    let output = ''
    let errors = ''
    child.stdout.on('data', (data) => {
      output += data
    })
    child.stderr.on('data', (data) => {
      errors += data
    })
    child.on('error', reject)
    child.on('close', (code, signal) => {
      clearTimeout(late)
      const lines = output.split('\n').filter((line) => line.endsWith('}'))
      const trace = fs.readFileSync(log, 'utf8')
      fs.rmSync(log)
      resolve({ lines: lines.map((line) => JSON.parse(line)), signal, code, errors, trace })
    })
  })
}

/** Names the keys that the life told, in their order. */
export function nameKeys({ lines }: Life, cast: Cast, known: number): number {
  const names = new Set<string>()
  for (const line of lines)
    if (line.at === 'returned' && line.step === 'begin') {
      const key = createPublicKey(line.publicKeys.at(-1) ?? '')
      names.add(cast.nameKey(key, `K${known + names.size + 1}`))
      cast.answer(key)
    }
  return known + names.size
}

/** One call of the kernel, of those that touch the store's files. */
export interface SystemCall {
  readonly name: string
  /** What it touches, relative to the root. */
  readonly path: string
  /** How many of this name had touched it, this one included. */
  readonly count: number
  readonly text: string
}

const traced = '%file,%desc'

/** What a whole life in `root` asks of the file system below it. */
export async function traceLife(
  root: string,
  known: number,
  names: readonly StepName[],
): Promise<{ life: Life; calls: readonly SystemCall[] }> {
  const log = `${root}.strace`
  const life = await live(root, known, names, [
    '-y',
    '-s',
    '512',
    '-e',
    `trace=${traced}`,
    '-o',
    log,
  ])
  const counts = new Map<string, number>()
  const calls: SystemCall[] = []
  let inside = false
  for (const text of life.trace.split('\n')) {
    const name = /^(\w+)\(/.exec(text)?.[1]
    if (!name) continue
    if (text.includes(markers.begin)) inside = true
    if (text.includes(markers.end)) inside = false
    const touched = [...text.matchAll(/[<"](\/[^">]*)/g)].map((match) => match[1] ?? '')
    const own = touched.filter((one) => one === root || one.startsWith(`${root}/`))
    const target = name === 'rename' ? own[0] : own.at(-1) // as strace -P takes it
    if (!inside || target === undefined) continue
    const count = (counts.get(`${name} ${target}`) ?? 0) + 1
    counts.set(`${name} ${target}`, count)
    calls.push({ name, path: path.relative(root, target), count, text })
  }
  return { life, calls }
}

const reading =
  /^(access|faccessat2?|stat|lstat|newfstatat|statx|fstat|readlink|getdents64|read|pread64|close|lseek|fcntl)$/

/** The operations on the disk that system calls amount to, as the recorder's {@link sentence}s. */
export function operationsOf(
  calls: readonly SystemCall[],
  root: string,
  existing: Iterable<string>,
): string[] {
  const files = new Set(existing)
  const found: string[] = []
  const relative = (name: string): string => path.relative(root, name)
  const inside = (name: string): boolean => name === root || name.startsWith(`${root}/`)
  const put = (operation: Parameters<typeof sentence>[0]): void =>
    void found.push(sentence(operation))
  for (const { name, text } of calls) {
    if (reading.test(name) || / = -1 E/.test(text)) continue
    const [first = '', second = ''] = [...text.matchAll(/"([^"]*)"/g)].map(
      (match) => match[1] ?? '',
    )
    const target = relative(first)
    const descriptor = /^\w+\(\d+<([^>]*)>/.exec(text)?.[1] ?? ''
    const mode = Number.parseInt(/, (0[0-7]+)\)/.exec(text)?.[1] ?? '0', 8)
    const size = Number(/ = (\d+)$/.exec(text)?.[1])
    switch (name) {
      case 'openat':
        if (!text.includes('O_CREAT')) break
        if (files.has(target)) {
          if (text.includes('O_TRUNC')) put({ do: 'truncate', path: target, length: 0 })
        } else put({ do: 'create', path: target, mode })
        files.add(target)
        break
      case 'mkdir':
        put({ do: 'mkdir', path: target, mode })
        break
      case 'rmdir':
        put({ do: 'rmdir', path: target })
        break
      case 'unlink':
        files.delete(target)
        put({ do: 'unlink', path: target })
        break
      case 'symlink':
        put({ do: 'symlink', target: first, path: relative(second) })
        break
      case 'rename':
      case 'link':
        files.add(relative(second))
        put({ do: name, from: target, to: relative(second) })
        break
      case 'chmod':
        put({ do: 'chmod', path: target, mode })
        break
      case 'fchmod':
        put({ do: 'chmod', path: relative(descriptor), mode })
        break
      case 'fsync':
        if (inside(descriptor)) put({ do: 'sync', path: relative(descriptor) })
        break
      case 'write':
        put({ do: 'write', path: relative(descriptor), at: 0, data: Buffer.alloc(size) })
        break
      default:
        throw new Error(`a system call that is not known here: ${text}`)
    }
  }
  return found
}
