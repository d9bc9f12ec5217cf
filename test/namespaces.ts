/**
 * Network namespaces of Linux, for tests: networks of their own, with their own hosts file and their
 * own name server, and nothing of this machine's. By iproute2; root only.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import { text } from 'node:stream/consumers'
import { onTestFinished } from 'vitest'

function ip(...args: readonly string[]): void {
  const { status, stderr, error } = spawnSync('ip', args, { encoding: 'utf8' })
  if (status !== 0) throw new Error(`ip ${args.join(' ')}: ${stderr || error?.message}`)
}

function whyMissing(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can make network namespaces'
  if (spawnSync('ip', ['-V']).error) return 'iproute2 is not installed'
  const probe = `certvend-probe-${process.pid}`
  try {
    ip('netns', 'add', probe)
    ip('-n', probe, 'link', 'add', 'probe0', 'type', 'veth', 'peer', 'name', 'probe1')
    ip('netns', 'exec', probe, 'true')
    return undefined
  } catch (error) {
    return `this kernel makes no network namespaces: ${(error as Error).message}`
  } finally {
    spawnSync('ip', ['netns', 'del', probe])
  }
}

/** Why tests in namespaces are skipped, or nothing. */
export const namespacesMissing: string | undefined = whyMissing()

/** Why a packet filter cannot be had, or nothing. */
export const filterMissing: string | undefined =
  namespacesMissing ?? (spawnSync('nft', ['-v']).error ? 'nftables is not installed' : undefined)

export interface Namespace {
  /** Runs a program to its end; its output, or an error with what it said. */
  run(program: string, ...args: readonly string[]): string
  /** Starts a program; killed when the test ends. */
  start(
    program: string,
    args: readonly string[],
    env?: Readonly<Record<string, string>>,
  ): ChildProcess
  /** Runs a module with imports as from a test, and gives what it printed, as JSON. */
  script<T>(script: string, args?: unknown, env?: Readonly<Record<string, string>>): Promise<T>
}

let made = 0

/** A network with a loopback and nothing else, until the test ends. */
export function makeNamespace(
  role: string,
  { hosts = '', resolver = '127.0.0.1' }: { hosts?: string; resolver?: string } = {},
): Namespace & { readonly name: string } {
  const name = `certvend-${role}-${process.pid}-${++made}`
  const files = `/etc/netns/${name}`
  fs.mkdirSync(files, { recursive: true })
  fs.writeFileSync(`${files}/hosts`, `127.0.0.1 localhost\n::1 localhost\n${hosts}\n`)
  fs.writeFileSync(`${files}/resolv.conf`, `nameserver ${resolver}\noptions timeout:1 attempts:1\n`)
  ip('netns', 'add', name)
  onTestFinished(() => {
    ip('netns', 'del', name)
    fs.rmSync(files, { recursive: true, force: true })
  })
  ip('-n', name, 'link', 'set', 'lo', 'up')
  const inside = (program: string, args: readonly string[]): [string, string[]] => [
    'ip',
    ['netns', 'exec', name, program, ...args],
  ]
  const start: Namespace['start'] = (program, args, env = {}) => {
    const child = spawn(...inside(program, args), {
      cwd: import.meta.dirname,
      env: { PATH: process.env.PATH, ...env },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    onTestFinished(async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      child.kill('SIGKILL')
      await once(child, 'exit')
    })
    return child
  }
  return {
    name,
    run(program, ...args) {
      const [command, all] = inside(program, args)
      const { status, stdout, stderr } = spawnSync(command, all, { encoding: 'utf8' })
      if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`)
      return stdout
    },
    start,
    async script<T>(script: string, args: unknown = {}, env = {}) {
      const child = start(process.execPath, ['--input-type=module', '-e', script], env)
      child.stdin?.end(JSON.stringify(args))
      return JSON.parse(await text(child.stdout as NodeJS.ReadableStream)) as T
    },
  }
}

let cables = 0

/** A cable between two namespaces; each end has addresses with their prefix lengths. */
export function cable(
  ...ends: readonly [
    readonly [Namespace & { name: string }, ...string[]],
    readonly [Namespace & { name: string }, ...string[]],
  ]
): readonly [string, string] {
  const names = [`cv${++cables}a`, `cv${cables}b`] as const
  const [[here], [there]] = ends
  ip(
    '-n',
    here.name,
    'link',
    'add',
    names[0],
    'type',
    'veth',
    'peer',
    names[1],
    'netns',
    there.name,
  )
  for (const [at, [{ name }, ...addresses]] of ends.entries()) {
    const device = names[at] as string
    // No duplicate address detection: an IPv6 address is usable at once.
    for (const address of addresses)
      ip(
        '-n',
        name,
        'address',
        'add',
        address,
        'dev',
        device,
        ...(address.includes(':') ? ['nodad'] : []),
      )
    ip('-n', name, 'link', 'set', device, 'up')
  }
  return names
}

/** The next line that a child prints, as JSON. */
export async function nextJson<T>(child: ChildProcess): Promise<T> {
  let line = ''
  for await (const chunk of child.stdout as AsyncIterable<Buffer>) {
    line += chunk
    if (line.includes('\n')) break
  }
  return JSON.parse(line)
}
