/**
 * Tells systemd that the server listens (sd_notify(3)), so that `systemctl start` returns then, and fails
 * with what fails before. Node has no datagram sockets for AF_UNIX: `systemd-notify` speaks for us, hence
 * `NotifyAccess=all` in the unit.
 */
import { spawn } from 'node:child_process'
import type { Terminal } from './terminal.ts'

/** Says READY=1 and what `systemctl status` shows; without NOTIFY_SOCKET nothing. Never rejects. */
export function tellSystemd({ NOTIFY_SOCKET }: Terminal['env'], status: string): Promise<void> {
  if (!NOTIFY_SOCKET) return Promise.resolve()
  return new Promise((resolve) => {
    const child = spawn('systemd-notify', ['--ready', `--status=${status}`], {
      stdio: 'ignore',
      env: { PATH: '/usr/bin:/bin', NOTIFY_SOCKET },
    })
    child.once('error', () => resolve())
    child.once('close', () => resolve())
  })
}
