/**
 * Words with systemd: ready, what we are doing, and that the loop still turns (sd_notify(3)).
 *
 * Node has no datagram sockets for AF_UNIX, so `systemd-notify` speaks for us; hence
 * `NotifyAccess=all` in the unit. One call at a time, and only the latest status is worth saying.
 */
import { spawn } from 'node:child_process'

export interface Notify {
  /** What `systemctl status` shows; said again only when it differs. */
  status(words: string): void
  /** Says READY=1, once. */
  ready(): void
  stopping(): void
  /** Feeds the watchdog. */
  alive(): void
  /** Half of systemd's patience, in milliseconds, when it has a limit: `alive` at least this often. */
  readonly aliveEveryMs?: number
}

/** Runs `systemd-notify` with these assignments; resolves when it has ended, however. */
type Say = (assignments: readonly string[]) => Promise<void>

/**
 * Takes both variables out of the environment, so that no child of ours is mistaken for us, and
 * gives them to `systemd-notify` alone. Without NOTIFY_SOCKET everything here does nothing.
 */
export function openNotify(environment: NodeJS.ProcessEnv, say?: Say): Notify {
  const { NOTIFY_SOCKET: socket, WATCHDOG_USEC: patience } = environment
  delete environment.NOTIFY_SOCKET
  delete environment.WATCHDOG_USEC
  delete environment.WATCHDOG_PID
  if (!socket) return { status() {}, ready() {}, stopping() {}, alive() {} }
  const tell = say ?? systemdNotify(socket)
  const waiting = new Map<string, string>()
  const said = new Map<string, string>()
  let speaking = false

  async function speak(): Promise<void> {
    if (speaking) return
    speaking = true
    while (waiting.size > 0) {
      const assignments = [...waiting].map(([name, value]) => `${name}=${value}`)
      waiting.clear()
      await tell(assignments)
    }
    speaking = false
  }
  const assign = (name: string, value: string, { again = false } = {}): void => {
    if (!again && said.get(name) === value) return
    said.set(name, value)
    waiting.set(name, value)
    void speak()
  }
  const aliveEveryMs = Number(patience) / 2000
  return {
    status: (words) => assign('STATUS', words.replaceAll(/\s+/g, ' ')),
    ready: () => assign('READY', '1'),
    stopping: () => assign('STOPPING', '1'),
    alive: () => assign('WATCHDOG', '1', { again: true }),
    ...(aliveEveryMs > 0 ? { aliveEveryMs } : {}),
  }
}

const systemdNotify =
  (socket: string): Say =>
  (assignments) =>
    new Promise((resolve) => {
      const child = spawn('systemd-notify', assignments, {
        stdio: 'ignore',
        env: { PATH: '/usr/bin:/bin', NOTIFY_SOCKET: socket },
      })
      child.once('error', () => resolve())
      child.once('close', () => resolve())
    })
