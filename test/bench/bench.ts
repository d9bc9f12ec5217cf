/**
 * `npm run bench`: what a boot costs with Certvend, beside the same job done by hand with mqtt and
 * undici, and what one pinned HTTPS request costs, each in a process of its own against a lab in
 * another. Runs alternate, so the ratios hold even when the machine's speed drifts.
 *
 * Last, what an agent costs that is online while nothing happens.
 *
 * `--pairs <n>` (15 by default), `--idle-seconds <n>` (60 by default), `--json`.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { cannotIdle, measureIdle } from './idle.ts'
import { cleanEnvironment, measure, programPath, ratios, summary, type Usage } from './measure.ts'
import { type Report, render } from './report.ts'

const { values } = parseArgs({
  options: {
    pairs: { type: 'string', default: '15' },
    'idle-seconds': { type: 'string', default: '60' },
    json: { type: 'boolean', default: false },
  },
})
const pairs = Number(values.pairs)
if (!Number.isInteger(pairs) || pairs < 1) throw new RangeError('--pairs takes a whole number')

const seconds = Number(values['idle-seconds'])
if (!(seconds > 0)) throw new RangeError('--idle-seconds takes a number above 0')

const say = (text: string): void => {
  if (!values.json) process.stderr.write(`${text}\n`)
}

interface LabHere {
  readonly vendingUrl: string
  readonly pins: string
  readonly devices: { deviceSerial: string; token: string }[]
  end(): void
}

async function startLab(devices: number): Promise<LabHere> {
  const child = spawn(process.execPath, [programPath('lab'), String(devices)], {
    env: cleanEnvironment(),
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  for await (const line of createInterface({ input: child.stdout }))
    return { ...JSON.parse(line), end: () => child.stdin.end() }
  throw new Error('the lab did not start')
}

/** Runs each kind in turn, `rounds` times; a first round warms up and is thrown away. */
async function alternate<K extends string>(
  rounds: number,
  kinds: readonly K[],
  run: (kind: K, round: number) => Promise<Usage>,
): Promise<Record<K, Usage[]>> {
  const runs = Object.fromEntries(kinds.map((kind) => [kind, [] as Usage[]])) as Record<K, Usage[]>
  for (let round = 0; round <= rounds; round++)
    for (const kind of kinds) {
      const usage = await run(kind, round)
      if (round > 0) runs[kind].push(usage)
    }
  return runs
}

const folder = fs.mkdtempSync(path.join(fs.realpathSync(tmpdir()), 'certvend-bench-'))
const lab = await startLab(2 * (pairs + 1) + 1)
try {
  const { vendingUrl, pins, devices } = lab
  const programs = ['ours', 'plain'] as const
  const boot = (program: (typeof programs)[number], round: number) =>
    measure(program, {
      ...(devices[2 * round + programs.indexOf(program)] as (typeof devices)[number]),
      vendingUrl,
      pins,
      directory: path.join(folder, `${program}-${round}`),
    })
  say(`First boots: ${pairs} pairs …`)
  const first = await alternate(pairs, programs, boot)
  say(`Later boots: ${pairs} pairs …`)
  const later = await alternate(pairs, programs, boot)
  const ways = ['node', 'certvend', 'client-baseline', 'client', 'undici'] as const
  const rounds = Math.min(pairs, 9)
  say(`One pinned HTTPS request, ${ways.length} ways: ${rounds} rounds …`)
  const requests = await alternate(rounds, ways, (way) =>
    measure('request', { way, vendingUrl, pins }),
  )
  say(`${seconds} s online …`)
  const skipped = cannotIdle()
  const idle = skipped
    ? { skipped }
    : await measureIdle({
        ...(devices.at(-1) as (typeof devices)[number]),
        ...{ vendingUrl, pins, seconds },
        directory: path.join(folder, 'idle'),
      })
  const report: Report = {
    node: process.version,
    machine: `${process.platform} ${process.arch}, ${cpus().length} × ${cpus()[0]?.model ?? '?'}`,
    pairs,
    boots: Object.fromEntries(
      Object.entries({ first, later }).map(([name, { ours, plain }]) => [
        name,
        { ours: summary(ours), plain: summary(plain), ratio: ratios(ours, plain) },
      ]),
    ),
    requests: Object.fromEntries(
      ways.map((way) => [
        way,
        { usage: summary(requests[way]), ratio: ratios(requests[way], requests.node) },
      ]),
    ),
    idle,
  }
  process.stdout.write(values.json ? `${JSON.stringify(report, undefined, 2)}\n` : render(report))
} finally {
  lab.end()
  fs.rmSync(folder, { recursive: true, force: true })
}
