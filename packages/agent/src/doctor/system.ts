/** What doctor hears from others on this machine: systemd, and the daemon. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { ask, doorFile } from '../socket.ts'
import type { StatusDocument } from '../status.ts'
import type { Daemon, Unit } from './evidence.ts'

const longestWaitMs = 3000

/** Nothing where systemd does not run (sd_booted(3)) or knows no such service. */
export function readUnit(name = 'certvend.service'): Unit | undefined {
  if (!fs.existsSync('/run/systemd/system')) return undefined
  const names = ['LoadState', 'ActiveState', 'SubState', 'Result', 'UnitFileState', 'NRestarts']
  const { stdout, status } = spawnSync(
    'systemctl',
    ['show', name, ...names.map((one) => `--property=${one}`)],
    { encoding: 'utf8', timeout: longestWaitMs, stdio: ['ignore', 'pipe', 'ignore'] },
  )
  if (status !== 0) return undefined
  const said = new Map(
    stdout.split('\n').map((line) => line.split(/=(.*)/s, 2) as [string, string]),
  )
  const [load = '', active = '', sub = '', result = '', file = '', restarts = ''] = names.map(
    (one) => said.get(one) ?? '',
  )
  if (load === 'not-found' || load === '') return undefined
  return { load, active, sub, result, file, restarts: Number(restarts) || 0 }
}

export async function askDaemon(socketDirectory: string): Promise<Daemon | undefined> {
  const door = doorFile(socketDirectory, 'query')
  try {
    if (!fs.existsSync(door)) return undefined
    fs.accessSync(door, fs.constants.W_OK)
  } catch {
    return { closedToUs: true }
  }
  const answer = await ask(socketDirectory, 'query', { do: 'status' })
  return {
    closedToUs: false,
    ...(answer?.ok ? { status: answer.result as StatusDocument } : {}),
  }
}
