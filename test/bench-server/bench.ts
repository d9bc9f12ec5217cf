/**
 * `npm run bench:server`: enrollments per second on libsql beside the bare TLS and signature floor, in
 * one run; memory with 100 000 devices; ten thousand devices at once against a quota under a clock
 * that jumps, and two hundred real ones.
 *
 * `--rounds <n>` (5), `--requests <n>` (300 per round), `--herd <n>` (10 000), `--devices <n>` (100 000),
 * `--only rate|memory|herd|real`, `--json`.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CertvendError } from '@certvend/client'
import { parseRetryAfter, retrying } from '@certvend/client/retry'
import { generateToken, hashToken, type NewDevice, openLibsqlRegistry } from '@certvend/server'
import { cleanEnvironment, median } from '../bench/measure.ts'
import { runHerd } from './herd.ts'
import { type Asked, ask, load, makeAsked } from './load.ts'

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    requests: { type: 'string', default: '300' },
    herd: { type: 'string', default: '10000' },
    devices: { type: 'string', default: '100000' },
    only: { type: 'string' },
    json: { type: 'boolean', default: false },
  },
})
const [rounds, requests, herd, devices] = [
  values.rounds,
  values.requests,
  values.herd,
  values.devices,
].map(Number) as [number, number, number, number]
const lanes = 8
const quota = 10
const say = (text: string): void => void process.stderr.write(`${text}\n`)
const wants = (part: string): boolean => values.only === undefined || values.only === part
const folder = fs.mkdtempSync(path.join(fs.realpathSync(tmpdir()), 'certvend-bench-server-'))

interface Usage {
  readonly cpuMs: number
  readonly rssMiB: number
  readonly spent: Readonly<Record<string, number>>
  readonly judgeMs?: number
}

async function openDoor(settings: object) {
  const program = fileURLToPath(new URL('./door.js', import.meta.url))
  const child = spawn(process.execPath, [program, JSON.stringify(settings)], {
    env: cleanEnvironment(),
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => JSON.parse((await lines.next()).value)
  const { port } = (await next()) as { port: number }
  const say = (word: string) => {
    child.stdin.write(`${word}\n`)
    return next() as Promise<Usage>
  }
  const ended = new Promise((resolve) => child.once('exit', resolve))
  return {
    port,
    usage: () => say('usage'),
    judge: (csr: string) => say(`judge ${JSON.stringify(csr)}`),
    end: () => {
      child.stdin.write('end\n')
      return ended
    },
  }
}

const directoryOf = (name: string): string => {
  const directory = path.join(folder, name)
  fs.mkdirSync(directory, { mode: 0o700, recursive: true })
  return directory
}
const pinOf = (directory: string) => fs.readFileSync(`${directory}/tls/pin.pem`, 'utf8')

/** Adds devices to the registry in `directory`, and has their requests ready. */
async function prepare(directory: string, count: number, name: string): Promise<Asked[]> {
  const registry = openLibsqlRegistry(`${directory}/registry.db`)
  const made: Asked[] = []
  const added: NewDevice[] = []
  for (let index = 0; index < count; index += 1) {
    const [deviceSerial, token] = [`${name}-${index}`, generateToken()]
    added.push({
      deviceSerial,
      thingName: deviceSerial,
      token: await hashToken(token, 'generated'),
    })
    made.push(await makeAsked(deviceSerial, token))
  }
  await registry.addAll(added, new Date())
  await registry.close()
  return made
}

async function rate() {
  const [ours, floor] = [directoryOf('ours'), directoryOf('floor')]
  say(`rate: ${rounds} rounds of ${requests} enrollments, ${lanes} at a time, full TLS handshakes`)
  const asked = await prepare(ours, requests * (rounds + 1), 'R')
  const doors = {
    floor: await openDoor({ kind: 'floor', directory: floor }),
    ours: await openDoor({ kind: 'ours', directory: ours }),
  }
  const results = { floor: [] as object[], ours: [] as object[] }
  const pairs: { rate: number; cpu: number }[] = []
  let parts: Record<string, number> = {}
  for (let round = 0; round <= rounds; round += 1) {
    const batch = asked.slice(round * requests, (round + 1) * requests)
    const measured: Record<string, { perSecond: number; cpuMs: number }> = {}
    for (const kind of ['floor', 'ours'] as const) {
      const before = await doors[kind].usage()
      const pin = pinOf(kind === 'ours' ? ours : floor)
      const made = await load(doors[kind].port, pin, batch, lanes)
      const after = await doors[kind].usage()
      const cpuMs = (after.cpuMs - before.cpuMs) / requests
      measured[kind] = { perSecond: made.perSecond, cpuMs }
      if (round === 0) continue // warms up
      results[kind].push({ ...made, cpuMs })
      if (kind === 'ours')
        parts = Object.fromEntries(
          Object.entries(after.spent).map(([part, ms]) => [
            part,
            (ms - (before.spent[part] ?? 0)) / requests,
          ]),
        )
    }
    if (round > 0)
      pairs.push({
        rate: measured.ours!.perSecond / measured.floor!.perSecond,
        cpu: measured.ours!.cpuMs / measured.floor!.cpuMs,
      })
  }
  const { judgeMs } = await doors.ours.judge(asked[0]!.csr)
  await Promise.all([doors.ours.end(), doors.floor.end()])
  const middle = (list: object[]) =>
    Object.fromEntries(
      ['perSecond', 'p50Ms', 'p99Ms', 'cpuMs'].map((name) => [
        name,
        median(list.map((one) => (one as Record<string, number>)[name]!)),
      ]),
    )
  return {
    floor: middle(results.floor),
    ours: middle(results.ours),
    oursToFloor: {
      rate: median(pairs.map((pair) => pair.rate)),
      cpu: median(pairs.map((pair) => pair.cpu)),
    },
    milliseconds: { ...parts, judgingTheRequest: judgeMs },
  }
}

async function memory() {
  const directory = directoryOf('memory')
  say(`memory: a registry of ${devices} devices`)
  const empty = await openDoor({ kind: 'ours', directory: directoryOf('empty') })
  const bare = (await empty.usage()).rssMiB
  await empty.end()
  const registry = openLibsqlRegistry(`${directory}/registry.db`)
  const token = await hashToken(generateToken(), 'generated')
  const began = performance.now()
  for (let start = 0; start < devices; start += 1000) {
    const batch = Array.from({ length: Math.min(1000, devices - start) }, (_, index) => {
      const deviceSerial = `M-${start + index}`
      return { deviceSerial, thingName: deviceSerial, token }
    })
    await registry.addAll(batch, new Date())
  }
  const addSeconds = (performance.now() - began) / 1000
  const listed = performance.now()
  let [after, count] = ['', 0]
  for (;;) {
    const page = await registry.list({ after, limit: 500 })
    if (page.length === 0) break
    after = page.at(-1)!.deviceSerial
    count += page.length
  }
  const listSeconds = (performance.now() - listed) / 1000
  await registry.close()
  const asked = await prepare(directory, 500, 'E')
  const door = await openDoor({ kind: 'ours', directory })
  const started = (await door.usage()).rssMiB
  const { perSecond } = await load(door.port, pinOf(directory), asked, lanes)
  const worked = (await door.usage()).rssMiB
  await door.end()
  return {
    devices: count,
    addSeconds,
    listSeconds,
    fileMiB: fs.statSync(`${directory}/registry.db`).size / 2 ** 20,
    rssMiB: { emptyRegistry: bare, atStart: started, after500Enrollments: worked },
    perSecond,
  }
}

/** Devices with sockets and the system's clock, against the same quota. */
async function real(count: number) {
  const directory = directoryOf('real')
  say(`real: ${count} devices at once against ${quota} a second`)
  const asked = await prepare(directory, count, 'D')
  const door = await openDoor({ kind: 'ours', directory, perSecond: quota })
  const pin = pinOf(directory)
  let made = 0
  const began = performance.now()
  const served = await Promise.all(
    asked.map((one) =>
      retrying(async () => {
        made += 1
        const { status, retryAfter } = await ask(door.port, pin, one)
        if (status === 200) return true
        const retryAt = parseRetryAfter(retryAfter, new Date())
        throw new CertvendError('ERR_SERVER_BUSY', `status ${status}`, {
          ...(retryAt && { retryAt }),
        })
      }),
    ),
  )
  const seconds = (performance.now() - began) / 1000
  await door.end()
  return { devices: count, served: served.length, requestsPerDevice: made / count, seconds }
}

const report: Record<string, unknown> = {
  node: process.version,
  cpu: `${cpus().length} × ${cpus()[0]?.model}`,
}
let failed = false
try {
  if (wants('rate')) report.rate = await rate()
  if (wants('memory')) report.memory = await memory()
  if (wants('herd')) {
    say(`herd: ${herd} devices at once against ${quota} a second, seed 1`)
    const result = await runHerd(herd, quota, 1, directoryOf('herd'), say)
    report.herd = result
    failed ||= result.served !== herd || result.requestsPerDevice > 2.1
  }
  if (wants('real')) {
    const result = await real(200)
    report.real = result
    failed ||= result.served !== 200
  }
} finally {
  fs.rmSync(folder, { recursive: true, force: true })
}
process.stdout.write(`${JSON.stringify(report, undefined, values.json ? 0 : 2)}\n`)
if (failed) {
  say('the herd was not served as it should be: see requestsPerDevice and served')
  process.exitCode = 1
}
