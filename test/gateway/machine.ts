/**
 * A minimal Debian with systemd as its first process, in a namespace of its own: what a gateway is to
 * its software, booted in a second. Its network is a cable to this host that can be pulled.
 */
import { type ChildProcess, execFile, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { homedir } from 'node:os'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { promisify } from 'node:util'

const execute = promisify(execFile)

/** Runs a program on this host; rejects when it fails. */
export async function host(program: string, ...argv: readonly string[]): Promise<string> {
  const { stdout } = await execute(program, argv, { maxBuffer: 64 * 1024 * 1024 })
  return stdout
}

/** Where systems are kept from one run to the next. */
export const cache: string = path.join(
  process.env.XDG_CACHE_HOME ?? path.join(homedir(), '.cache'),
  'certvend',
)

/** Why no machine can be booted here, or nothing. */
export function missingForMachines(more: readonly string[] = []): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can boot a machine'
  for (const program of ['systemd-nspawn', 'debootstrap', 'ip', 'nsenter', ...more])
    if (spawnSync('sh', ['-c', `PATH=$PATH:/usr/sbin command -v ${program}`]).status !== 0)
      return `${program} is not here`
  return undefined
}

export const suite = 'trixie'
const packages =
  'systemd,systemd-sysv,dbus,nodejs,util-linux,iproute2,mosquitto,mosquitto-clients,procps'

/** The root file system that machines are copied from; made by debootstrap, once. */
export async function baseSystem(cache: string): Promise<string> {
  // Another list of packages is another system.
  const base = path.join(cache, `${suite}-${packages.split(',').length}`)
  if (fs.existsSync(base)) return base
  fs.mkdirSync(cache, { recursive: true })
  const unfinished = fs.mkdtempSync(`${base}-`)
  await host('debootstrap', '--variant=minbase', `--include=${packages}`, suite, unfinished)
  fs.chmodSync(unfinished, 0o755) // mkdtemp closes to others what becomes their root directory
  fs.renameSync(unfinished, base)
  return base
}

export interface Outcome {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

export interface Machine {
  /** Where its root file system lies on this host. */
  readonly root: string
  boot(): Promise<void>
  /** As `poweroff` or `reboot` end it: in order. */
  shutDown(): Promise<void>
  /** Runs a shell line in it, as root. */
  run(line: string): Promise<Outcome>
  /** Repeats a shell line until it succeeds; rejects after `limitMs`, 60 000 by default. */
  until(line: string, limitMs?: number): Promise<void>
  /** Pulls the cable, or puts it back. */
  cable(state: 'up' | 'down'): Promise<void>
  /** Ends it at once and removes all that was made for it. */
  destroy(): Promise<void>
}

export const hostAddress = '10.213.77.1'
export const machineAddress = '10.213.77.2'
const name = 'certvend-gateway'
const outside = 'certvend0'

/** Puts the files of `base` at `root`, which is not there yet; what else it needs goes into `directory`. */
export type LayOut = (base: string, root: string, directory: string) => Promise<void>

/** A file system of its own: the only one on which systemd maps owners as on a gateway's disk. */
const copy: LayOut = async (base, root) => {
  await host('cp', '-a', '--reflink=auto', base, root)
}

/** A machine whose `localhost` is this host, as the lab's certificates are for that name. */
export async function buildMachine(
  base: string,
  directory: string,
  layOut: LayOut = copy,
): Promise<Machine> {
  const root = path.join(directory, 'root')
  fs.mkdirSync(directory, { recursive: true })
  await layOut(base, root, directory)
  const put = (file: string, text: string): void => fs.writeFileSync(path.join(root, file), text)
  put('etc/machine-id', 'uninitialized\n') // as in an image: its first boot makes one
  put('etc/hostname', 'gateway\n')
  put('etc/hosts', `${hostAddress} localhost\n`)
  await host('ip', 'netns', 'add', name)
  await host('ip', 'link', 'add', outside, 'type', 'veth', 'peer', 'name', 'host0', 'netns', name)
  await host('ip', 'address', 'add', `${hostAddress}/30`, 'dev', outside)
  await host('ip', 'link', 'set', outside, 'up')
  const within = ['-n', name]
  await host('ip', ...within, 'address', 'add', `${machineAddress}/30`, 'dev', 'host0')
  for (const link of ['lo', 'host0']) await host('ip', ...within, 'link', 'set', link, 'up')

  let child: ChildProcess | undefined
  let ended: Promise<void> = Promise.resolve()
  let leader = ''

  async function run(line: string): Promise<Outcome> {
    const argv = ['-t', leader, '-a', '--', '/bin/sh', '-c', line]
    try {
      const done = await execute('nsenter', argv, {
        env: { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' },
        maxBuffer: 64 * 1024 * 1024,
      })
      return { code: 0, ...done }
    } catch (error) {
      const { code, stdout = '', stderr = '' } = error as Partial<Outcome>
      return { code: Number(code ?? 1), stdout, stderr }
    }
  }

  async function until(line: string, limitMs = 60_000): Promise<void> {
    let last: Outcome | undefined
    for (const end = performance.now() + limitMs; performance.now() < end; await pause(200)) {
      last = await run(line)
      if (last.code === 0) return
    }
    throw new Error(`never came true: ${line}\n${last?.stdout}${last?.stderr}`)
  }

  return {
    root,
    run,
    until,
    async boot() {
      const flags = [
        '--quiet',
        '--register=no',
        '--keep-unit',
        '--console=pipe',
        '--link-journal=no',
      ]
      const started = spawn(
        'systemd-nspawn',
        [...flags, `--network-namespace-path=/run/netns/${name}`, '-M', name, '-D', root, '--boot'],
        { stdio: 'ignore' },
      )
      child = started
      ended = new Promise((resolve) => started.once('close', () => resolve()))
      // The first child that nspawn has is not always the one that stays.
      for (let tries = 0; tries < 400; tries++, await pause(50)) {
        leader = (await host('pgrep', '-P', String(started.pid)).catch(() => '')).trim()
        if (leader !== '' && (await run('test -d /run/systemd/system')).code === 0) break
      }
      await until('systemctl is-system-running | grep -qE "running|degraded"')
    },
    async shutDown() {
      await run('systemctl poweroff')
      await ended
      child = undefined
      leader = ''
    },
    async cable(state) {
      await host('ip', 'link', 'set', outside, state)
    },
    async destroy() {
      child?.kill('SIGKILL')
      if (leader !== '') await host('kill', '-KILL', leader).catch(() => {})
      await ended
      await host('ip', 'netns', 'delete', name).catch(() => {})
      await host('ip', 'link', 'delete', outside).catch(() => {}) // gone with the namespace, usually
      await host('umount', root).catch(() => {}) // where it is a mount
    },
  }
}
