/** The bench's figures as a page for people. */
import type { Idle } from './idle.ts'
import type { Spread, Summary } from './measure.ts'

export interface Report {
  readonly node: string
  readonly machine: string
  readonly pairs: number
  /** `first` and `later`. */
  readonly boots: Readonly<
    Record<string, { readonly ours: Summary; readonly plain: Summary; readonly ratio: Summary }>
  >
  /** By way of sending; ratios are to `node`. */
  readonly requests: Readonly<Record<string, { readonly usage: Summary; readonly ratio: Summary }>>
  /** An agent online, or why it was not measured. */
  readonly idle: Idle | { readonly skipped: string }
}

const ms = ({ median }: Spread): string => `${median.toFixed(0)} ms`
const mebibytes = ({ median }: Spread): string => `${(median / 1024).toFixed(0)} MiB`
const times = ({ median, least, most }: Spread): string =>
  `${median.toFixed(2)} × [${least.toFixed(2)}–${most.toFixed(2)}]`

const ways: Readonly<Record<string, string>> = {
  node: 'node:https',
  certvend: 'Certvend',
  'client-baseline': "undici's Client, --liftoff-only",
  client: "undici's Client",
  undici: 'undici',
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]?.map((_, at) => Math.max(...rows.map((row) => row[at]?.length ?? 0))) ?? []
  return rows
    .map((row) =>
      row
        .map((cell, at) =>
          at === 0 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0),
        )
        .join('   ')
        .trimEnd(),
    )
    .join('\n')
}

function idleRows(idle: Report['idle']): readonly (readonly string[])[] {
  if ('skipped' in idle) return [['an agent online: not measured', idle.skipped]]
  const { cpuSecondsADay, childSecondsADay, wakeUpsAnHour, writtenBytes, changed, logged } = idle
  const files = changed.length === 0 ? 'no file changed' : changed.join(', ')
  return [
    [`an agent online, by ${idle.seconds} s of it`, ''],
    ['  CPU a day', `${cpuSecondsADay.toFixed(1)} s`],
    ['  CPU a day of its children', `${childSecondsADay.toFixed(1)} s`],
    ['  wake-ups an hour, all threads', wakeUpsAnHour.toFixed(0)],
    ['  written to disk', `${writtenBytes} bytes, ${files}`],
    ['  lines of log', String(logged)],
  ]
}

export function render({ node, machine, pairs, boots, requests, idle }: Report): string {
  const bootRows = Object.entries(boots).flatMap(([name, { ours, plain, ratio }]) => [
    [`${name} boot`, 'Certvend', 'by hand', 'ratio'],
    ['  to the acknowledgement', ms(ours.wallMs), ms(plain.wallMs), times(ratio.wallMs)],
    ['  CPU', ms(ours.cpuMs), ms(plain.cpuMs), times(ratio.cpuMs)],
    ['  peak memory', mebibytes(ours.peakKiB), mebibytes(plain.peakKiB), times(ratio.peakKiB)],
  ])
  const requestRows = Object.entries(requests).map(([way, { usage, ratio }]) => [
    `  ${ways[way] ?? way}`,
    ms(usage.cpuMs),
    mebibytes(usage.peakKiB),
    times(ratio.cpuMs),
  ])
  return `
Node ${node}, ${machine}. Whole processes; medians of ${pairs}, ratios within pairs [least–most].

${table(bootRows)}

${table([['one pinned HTTPS request', 'CPU', 'peak memory', 'CPU ÷ node:https'], ...requestRows])}

${table(idleRows(idle))}

By hand: mqtt and undici imported whole, nothing synced to disk, judged or repeated.
On Node 20, V8 optimises undici's WebAssembly at once; Certvend holds it to the baseline compiler.
`
}
