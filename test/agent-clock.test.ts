/** Gateways without a battery clock: 1970 at boot, years ahead, and back again. */
import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { startLab } from '@certvend/server/lab'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type DeviceFolder, deviceFolder, start } from './agent-process.ts'

const binary = fileURLToPath(new URL('../packages/agent/dist/main.js', import.meta.url))
const without = spawnSync('faketime', ['--version']).error ? 'no faketime' : undefined

/** What faketime sets for a program, so that signals reach the program and not faketime. */
function faked(time: string): NodeJS.ProcessEnv {
  const lines = spawnSync('faketime', ['-m', time, 'env'], { encoding: 'utf8' }).stdout.split('\n')
  const set = lines.filter((line) => /^(LD_PRELOAD|FAKETIME)=/.test(line))
  return Object.fromEntries(set.map((line) => line.split(/=(.*)/s).slice(0, 2)))
}

/** Runs the daemon with another idea of the time until it logs `event`; then SIGTERM. */
async function runAt(time: string, device: DeviceFolder, event: string) {
  const child = spawn(process.execPath, [binary, 'run', ...device.flags()], {
    cwd: device.path,
    env: { PATH: process.env.PATH, HOME: device.path, ...faked(time) },
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  onTestFinished(() => void child.kill('SIGKILL'))
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve))
  const events: Record<string, unknown>[] = []
  for await (const line of createInterface({ input: child.stdout })) {
    events.push(JSON.parse(line))
    if (events.at(-1)?.event === event) break
  }
  child.stdout.resume()
  child.kill('SIGTERM')
  return { last: events.at(-1), events, code: await exited }
}

async function world() {
  const lab = await startLab()
  onTestFinished(() => lab.close())
  return { lab, device: await deviceFolder(lab) }
}

describe.skipIf(without)('a first boot with a clock', () => {
  it.each([
    ['at 1970', '1970-01-02 00:00:00'],
    ['ten years ahead', '2036-11-22 00:00:00'],
  ])(
    '%s says that it is the clock, keeps its key, and enrolls once the clock is right',
    async (_, time) => {
      const { lab, device } = await world()
      const { last, code } = await runAt(time, device, 'enroll.retry')
      expect(last).toMatchObject({ event: 'enroll.retry' })
      expect(last?.code).toMatch(/^ERR_(CLOCK|SERVER_UNTRUSTED)$/)
      expect(code).toBe(0)
      const key = fs.readFileSync(device.at('state/pending/private-key.pem'), 'utf8')
      const agent = start(['run', ...device.flags()], { cwd: device.path })
      await agent.until('publish.acknowledged')
      expect(fs.readFileSync(device.at('state/current/private-key.pem'), 'utf8')).toBe(key)
      expect(lab.requests.filter(({ status }) => status === 200)).toHaveLength(1)
      expect((await agent.terminate()).code).toBe(0)
    },
  )
})

describe.skipIf(without)('a later boot with a clock', () => {
  it.each([
    ['at 1970', '1970-01-02 00:00:00'],
    ['ten years ahead', '2036-11-22 00:00:00'],
  ])('%s throws nothing away and asks nobody', async (_, time) => {
    const { lab, device } = await world()
    expect((await start(['enroll', ...device.flags()], { cwd: device.path }).exited).code).toBe(0)
    const before = fs.readFileSync(device.at('state/current/certificate.pem'), 'utf8')
    const { last, events, code } = await runAt(time, device, 'session.retry')
    expect(last).toMatchObject({ event: 'session.retry' })
    expect(events.filter(({ event }) => String(event).startsWith('enroll.'))).toEqual([])
    expect(code).toBe(0)
    expect(fs.readFileSync(device.at('state/current/certificate.pem'), 'utf8')).toBe(before)
    expect(lab.requests).toHaveLength(1)
  })
})
