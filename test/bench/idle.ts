/**
 * What an agent that is online costs while nothing happens: the built command against a lab, for a short
 * while, as a day of it.
 *
 * Its watchdog is fed every 20 s instead of every 150 s, so that a short while sees it: the loop turns more
 * often than in the service, and CPU and wake-ups are upper bounds. CPU of its children, systemd-notify, is
 * counted for each word and told for as many words as the service says in a day.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { cleanEnvironment } from './measure.ts'

const command = fileURLToPath(new URL('../../../packages/agent/dist/main.js', import.meta.url))

/** Between two words to the watchdog, here and in the service, in seconds. */
const wordEvery = 20
const serviceWordEvery = 150

export interface Idle {
  readonly seconds: number
  /** Of the process, in seconds a day. */
  readonly cpuSecondsADay: number
  /** Of its children, in seconds a day; in steps of the kernel's ticks. */
  readonly childSecondsADay: number
  /** Of all threads, an hour. */
  readonly wakeUpsAnHour: number
  /** Sent to disks by the process, in bytes. */
  readonly writtenBytes: number
  /** Names in the state directory whose time of change differs. */
  readonly changed: readonly string[]
  /** Lines of log. */
  readonly logged: number
}

export interface IdleOptions {
  readonly vendingUrl: string
  readonly pins: string
  readonly deviceSerial: string
  readonly token: string
  readonly directory: string
  /** How long to look, in seconds. */
  readonly seconds: number
}

/** Why it cannot be measured here, or nothing. */
export function cannotIdle(): string | undefined {
  return fs.existsSync('/proc/self/io') ? undefined : 'there is no /proc/<pid>/io'
}

/** @throws Error when the agent does not come online, or does not stay so */
export async function measureIdle(options: IdleOptions): Promise<Idle> {
  const { directory, seconds } = options
  fs.mkdirSync(directory, { recursive: true })
  const put = (name: string, text: string): string => {
    fs.writeFileSync(path.join(directory, name), text, { mode: 0o600 })
    return path.join(directory, name)
  }
  const state = path.join(directory, 'state')
  const flags = [
    ...['--server', options.vendingUrl, '--pin', put('pin.pem', options.pins)],
    ...['--serial', options.deviceSerial, '--token-file', put('token', options.token)],
    ...['--state-dir', state],
  ]
  execFileSync(process.execPath, [command, 'enroll', ...flags], { stdio: 'ignore' })
  const child = spawn(process.execPath, [command, 'run', '--json', '--state-dir', state], {
    env: {
      ...cleanEnvironment(),
      // As the unit has it; nobody listens, which costs the child as much.
      NOTIFY_SOCKET: path.join(directory, 'notify'),
      WATCHDOG_USEC: String(2 * wordEvery * 1_000_000),
    },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    const events: string[] = []
    createInterface({ input: child.stdout as NodeJS.ReadableStream }).on('line', (line) =>
      events.push(JSON.parse(line).event),
    )
    while (!events.includes('publish.acknowledged')) await alive(child, 50)
    await alive(child, 1000) // what a start leaves to do is done
    const said = events.length
    const before = look(child, state)
    await alive(child, seconds * 1000)
    const after = look(child, state)
    const days = seconds / 86_400
    return {
      seconds,
      cpuSecondsADay: (after.cpuSeconds - before.cpuSeconds) / days,
      childSecondsADay:
        ((after.childSeconds - before.childSeconds) / days) * (wordEvery / serviceWordEvery),
      wakeUpsAnHour: ((after.wakeUps - before.wakeUps) / seconds) * 3600,
      writtenBytes: after.written - before.written,
      changed: [...after.times].flatMap(([name, time]) =>
        before.times.get(name) === time ? [] : [name],
      ),
      logged: events.length - said,
    }
  } finally {
    child.kill('SIGKILL')
  }
}

async function alive(child: ChildProcess, ms: number): Promise<void> {
  await pause(ms)
  if (child.exitCode !== null) throw new Error(`the agent ended with ${child.exitCode}`)
}

const ticksASecond = 100 // USER_HZ, the same on every Linux

function look({ pid }: ChildProcess, state: string) {
  const read = (name: string): string => fs.readFileSync(`/proc/${pid}/${name}`, 'utf8')
  const threads = fs.readdirSync(`/proc/${pid}/task`)
  const sum = (value: (thread: string) => number): number =>
    threads.reduce((total, thread) => total + value(thread), 0)
  // After the name in parentheses, which may hold spaces: state is field 3 of proc_pid_stat(5).
  const fields = read('stat')
    .replace(/^.*\) /s, '')
    .split(' ')
  const children = Number(fields[13]) + Number(fields[14])
  return {
    cpuSeconds: sum((one) => Number(read(`task/${one}/schedstat`).split(' ')[0])) / 1e9,
    childSeconds: children / ticksASecond,
    wakeUps: sum((one) =>
      Number(/^voluntary_ctxt_switches:\s+(\d+)/m.exec(read(`task/${one}/status`))?.[1]),
    ),
    written: Number(/^write_bytes: (\d+)/m.exec(read('io'))?.[1]),
    times: new Map(
      fs
        .readdirSync(state, { recursive: true, encoding: 'utf8' })
        .map((name) => [name, fs.lstatSync(path.join(state, name)).mtimeMs] as const),
    ),
  }
}
