/**
 * Path validation by x509-limbo (C2SP): the SERVER cases against the client's own TLS options.
 *
 * `CERTVEND_LIMBO` names the vectors. The table in docs/trust.md is this run's; after a change write
 * it anew with `CERTVEND_WRITE_DOCS=1 npx vitest run test/limbo.test.ts`.
 */
import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { gunzipSync } from 'node:zlib'
import { beforeAll, describe, expect, it } from 'vitest'
import { exclusion, explanations, type LimboCase } from './limbo-exclusions.ts'

interface Judged {
  readonly id: string
  readonly verdict: 'accepted' | 'rejected'
  readonly because?: string
}

const root = path.resolve(import.meta.dirname, '..')
const vectors =
  process.env.CERTVEND_LIMBO ?? path.join(root, '../shared/vectors/x509-limbo.json.gz')
const missing = fs.existsSync(vectors) ? '' : ` (skipped: no ${vectors}; set CERTVEND_LIMBO)`
const canMoveClock = spawnSync('faketime', ['--version']).status === 0

/** Runs cases of one validation time, on a clock that stands still there. */
async function judge(time: string | null, ids: readonly string[]): Promise<Judged[]> {
  const node = [process.execPath, path.join(import.meta.dirname, 'limbo-client.mjs'), vectors]
  const moved = time === null ? [] : ['faketime', '-f', standing(new Date(time))]
  const [program, ...args] = [...moved, ...node] as [string, ...string[]]
  const child = spawn(program, args, {
    cwd: import.meta.dirname,
    env: { ...process.env, TZ: 'UTC', FAKETIME_DONT_FAKE_MONOTONIC: '1' },
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin.end(ids.join('\n'))
  const lines = (await text(child.stdout)).trim().split('\n')
  return lines.map((line) => JSON.parse(line))
}

/** As faketime wants an instant at which the clock stands. */
const standing = (time: Date): string => time.toISOString().replace('T', ' ').slice(0, 19)

describe.skipIf(missing !== '')(`x509-limbo, SERVER cases${missing}`, () => {
  const excluded = new Map<string, string[]>()
  const run = new Map<string, LimboCase>()
  const judged = new Map<string, Judged>()
  const wrong = (expected: LimboCase['expected_result'], verdict: Judged['verdict']): string[] =>
    [...run.values()]
      .filter((one) => one.expected_result === expected)
      .map((one) => judged.get(one.id))
      .flatMap((one) => (one?.verdict === verdict ? [one.id] : []))
  const wrongRejects = (): string[] => wrong('SUCCESS', 'rejected')

  beforeAll(async () => {
    const { testcases } = JSON.parse(gunzipSync(fs.readFileSync(vectors)).toString())
    for (const one of testcases as LimboCase[]) {
      if (one.validation_kind !== 'SERVER') continue
      const reason = exclusion(one, { canMoveClock })
      if (reason === undefined) run.set(one.id, one)
      else excluded.set(reason, [...(excluded.get(reason) ?? []), one.id])
    }
    const times = new Set([...run.values()].map((one) => one.validation_time))
    for (const time of times) {
      const ids = [...run.values()].filter((one) => one.validation_time === time)
      for (const one of await judge(
        time,
        ids.map(({ id }) => id),
      ))
        judged.set(one.id, one)
    }
  }, 120_000)

  it(`at least ${canMoveClock ? 120 : 110} are run, each with a verdict`, () => {
    expect(run.size).toBeGreaterThanOrEqual(canMoveClock ? 120 : 110)
    expect([...judged.keys()].sort()).toEqual([...run.keys()].sort())
  })

  it('none is wrongly accepted', () => {
    expect(wrong('FAILURE', 'accepted')).toEqual([])
  })

  it('each that is wrongly rejected is explained, and nothing else is', () => {
    const explained = Object.keys(explanations).filter((id) => run.has(id))
    expect(wrongRejects().sort()).toEqual(explained.sort())
  })

  it.skipIf(!canMoveClock)(
    `docs/trust.md shows this run${canMoveClock ? '' : ' (skipped: faketime is not installed)'}`,
    () => {
      const page = path.join(root, 'docs', 'trust.md')
      const [before, rest] = fs.readFileSync(page, 'utf8').split('<!-- limbo -->\n') as [
        string,
        string,
      ]
      const after = rest.split('<!-- /limbo -->')[1]
      const table = `${before}<!-- limbo -->\n${render()}<!-- /limbo -->${after}`
      if (process.env.CERTVEND_WRITE_DOCS) fs.writeFileSync(page, table)
      expect(fs.readFileSync(page, 'utf8')).toBe(table)
    },
  )

  function render(): string {
    const right = run.size - wrongRejects().length
    const rows = [...excluded].sort(([, a], [, b]) => b.length - a.length)
    return [
      '| SERVER cases | |',
      '| --- | ---: |',
      `| run | ${run.size} |`,
      `| … judged as the case says | ${right} |`,
      '| … wrongly accepted | 0 |',
      `| … wrongly rejected, explained below | ${wrongRejects().length} |`,
      ...rows.map(([reason, ids]) => `| not run: ${reason} | ${ids.length} |`),
      '',
      'Wrongly rejected:',
      '',
      ...Object.entries(explanations).map(([id, why]) => `- \`${id}\`: ${why}`),
      '',
      'Not run:',
      '',
      ...rows.map(([reason, ids]) => `- ${reason}: ${ids.map((id) => `\`${id}\``).join(', ')}`),
      '',
    ].join('\n')
  }
})
