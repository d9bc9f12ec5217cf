/**
 * A device with its two servers, and the real command run in it: as another user, with another
 * clock, in a network of its own. Everything that a fault changes is outside of the command.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import { openCredentialStore } from '@certvend/client'
import { type Lab, type LabOptions, startLab } from '@certvend/server/lab'
import { onTestFinished } from 'vitest'
import { temporaryDirectory } from '../temporary.ts'

export const certvend = fileURLToPath(new URL('../../packages/agent/dist/main.js', import.meta.url))

/** What `certvend doctor --json` printed, and how it ended. */
export interface Diagnosed {
  readonly code: number | null
  readonly cause: string | undefined
  /** The checks that found something, the most likely cause first. */
  readonly found: readonly string[]
  /** Everything it said. */
  readonly said: string
  readonly tookMs: number
}

export interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

/** The lines of `agent.toml`; a key without a value is left out. */
export interface Settings {
  url: string | undefined
  pins: string | string[] | undefined
  serial: string | { file: string } | undefined
  token_file: string | undefined
  state_directory: string | undefined
}

export interface Scene {
  readonly lab: Lab
  readonly folder: string
  readonly token: string
  readonly deviceSerial: string
  at(...names: string[]): string
  /** Written to `agent.toml` before each command. */
  readonly settings: Settings
  /** Appended as it is. */
  more: string
  /** Words before the command: `ip netns exec …`. */
  prefix: readonly string[]
  env: NodeJS.ProcessEnv
  /** Runs the command as this user. */
  user: number | undefined
  /** Default: the user's number. */
  group: number | undefined
  /** Flags instead of `--config agent.toml`. */
  flags: readonly string[] | undefined
  certvend(...argv: readonly string[]): Promise<Ran>
  enroll(): Promise<void>
  /** Starts the daemon and waits for this event in its log. */
  daemon(until: string, binary?: string): Promise<ChildProcess>
  doctor(): Promise<Diagnosed>
}

export async function makeScene(options: LabOptions = {}): Promise<Scene> {
  const lab = await startLab(options)
  onTestFinished(() => lab.close())
  const folder = temporaryDirectory()
  fs.chmodSync(folder, 0o755)
  const at = (...names: string[]): string => [folder, ...names].join('/')
  const { deviceSerial, token } = await lab.addDevice()
  fs.writeFileSync(at('pin.pem'), lab.pins)
  fs.writeFileSync(at('token'), `${token}\n`, { mode: 0o600 })
  const settings: Settings = {
    url: lab.vendingUrl,
    pins: 'pin.pem',
    serial: deviceSerial,
    token_file: 'token',
    state_directory: 'state',
  }

  function start(argv: readonly string[], binary: string): ChildProcess {
    writeSettings()
    const flags = scene.flags ?? ['--config', at('agent.toml')]
    const words = [...scene.prefix, process.execPath, binary, ...argv, ...flags]
    const child = spawn(words[0] as string, words.slice(1), {
      cwd: folder,
      env: { PATH: process.env.PATH, HOME: folder, ...scene.env },
      stdio: ['ignore', 'pipe', 'pipe'],
      ...(scene.user === undefined ? {} : { uid: scene.user, gid: scene.group ?? scene.user }),
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    return child
  }

  function writeSettings(): void {
    const lines = Object.entries(settings).flatMap(([key, value]) =>
      value === undefined ? [] : [`${key} = ${toml(value)}\n`],
    )
    fs.writeFileSync(at('agent.toml'), lines.join('') + scene.more)
    // Whatever the umask.
    if ((fs.statSync(at('agent.toml')).mode & 0o022) !== 0) fs.chmodSync(at('agent.toml'), 0o644)
  }

  const run = (argv: readonly string[]): Promise<Ran> => {
    const child = start(argv, certvend)
    const heard = { stdout: '', stderr: '' }
    for (const name of ['stdout', 'stderr'] as const)
      child[name]?.setEncoding('utf8').on('data', (text: string) => {
        heard[name] += text
      })
    return new Promise((resolve, reject) => {
      child.once('error', reject)
      child.once('close', (code) => resolve({ code, ...heard }))
    })
  }

  const scene: Scene = {
    lab,
    folder,
    token,
    deviceSerial,
    at,
    settings,
    more: '',
    prefix: [],
    env: {},
    user: undefined,
    group: undefined,
    flags: undefined,
    certvend: (...argv) => run(argv),
    async enroll() {
      const { code, stderr } = await run(['enroll'])
      if (code !== 0) throw new Error(`enroll exited ${code}: ${stderr}`)
    },
    async daemon(until, binary = certvend) {
      const child = start(['run'], binary)
      let said = ''
      await new Promise<void>((resolve, reject) => {
        child.stdout?.setEncoding('utf8').on('data', (text: string) => {
          said += text
          if (said.includes(`"event":"${until}"`)) resolve()
        })
        child.stderr?.on('data', (text) => {
          said += text
        })
        child.once('close', (code) => reject(new Error(`run exited ${code}: ${said}`)))
      })
      return child
    },
    async doctor() {
      const began = performance.now()
      const { code, stdout, stderr } = await run(['doctor', '--json'])
      const tookMs = performance.now() - began
      const { cause, findings } = parse(stdout, stderr)
      const found = findings.map(({ check }) => check)
      return { code, cause, found, said: stdout + stderr, tookMs }
    },
  }
  return scene
}

function parse(stdout: string, stderr: string): { cause?: string; findings: { check: string }[] } {
  try {
    return JSON.parse(stdout)
  } catch {
    throw new Error(`doctor said no JSON:\n${stdout}\n${stderr}`)
  }
}

const toml = (value: string | string[] | { file: string }): string =>
  typeof value === 'string' || Array.isArray(value)
    ? JSON.stringify(value)
    : `{ file = ${JSON.stringify(value.file)} }`

/** The credential that the scene's store holds. */
export async function credentialOf(scene: Scene) {
  const credential = (await openCredentialStore(scene.at('state'), { readOnly: true })).current()
  if (!credential) throw new Error('not enrolled')
  return credential
}

/** Lets the stored credential connect elsewhere, as if it had been vended so. */
export function redirect(scene: Scene, endpoint: { port?: number; host?: string; alpn?: string }) {
  const file = scene.at('state/current/credential.json')
  const { digest: _, ...record } = JSON.parse(fs.readFileSync(file, 'utf8')) // as before there were seals
  fs.writeFileSync(
    file,
    JSON.stringify({ ...record, endpoint: { ...record.endpoint, ...endpoint } }),
  )
}

/** Runs a round with one consumer, in a machine of the scene's own: its `/run`, its `/var/lib`. */
export async function handOn(scene: Scene, command: readonly string[]): Promise<Ran> {
  const { at } = scene
  const own = ['/run', '/var/lib'].map((place) => {
    fs.mkdirSync(at('own', place), { recursive: true, mode: 0o755 })
    return `mount --bind '${at('own', place)}' ${place} && `
  })
  scene.prefix = ['unshare', '--mount', 'sh', '-c', `${own.join('')}exec "$@"`, 'sh']
  scene.more = `[[consumers]]\nname = "broker"\nformat = "pem"\ndirectory = "${at('broker')}"\ncommand = ${JSON.stringify(command)}\n`
  return scene.certvend('consumers', 'run')
}

/** What faketime sets for a program. */
export function clockAt(date: Date): NodeJS.ProcessEnv {
  const time = date.toISOString().slice(0, 19).replace('T', ' ')
  const lines = spawnSync('faketime', ['-m', time, 'env'], {
    encoding: 'utf8',
    env: { ...process.env, TZ: 'UTC' },
  }).stdout.split('\n')
  const set = lines.filter((line) => /^(LD_PRELOAD|FAKETIME)=/.test(line))
  return Object.fromEntries([['TZ', 'UTC'], ...set.map((line) => line.split(/=(.*)/s).slice(0, 2))])
}

/** A small disk of its own under `directory`; gone when the test ends. */
export function mountDisk(directory: string, options: string): void {
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
  const { status, stderr } = spawnSync(
    'mount',
    ['-t', 'tmpfs', '-o', `mode=700,${options}`, 'tmpfs', directory],
    { encoding: 'utf8' },
  )
  if (status !== 0) throw new Error(`mount: ${stderr}`)
  onTestFinished(() => void spawnSync('umount', ['-l', directory]))
}

/** What the machine lacks for these tests, or nothing. */
export const missing: string | undefined =
  process.getuid?.() !== 0
    ? 'only root can make users, disks and networks'
    : ['ip', 'nft', 'faketime', 'flock', 'mount', 'mosquitto'].find(
        (name) =>
          spawnSync('sh', ['-c', `PATH=$PATH:/usr/sbin:/sbin command -v ${name}`]).status !== 0,
      )
