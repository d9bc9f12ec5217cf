/** Runs whole processes and says what each used; compares two kinds of them pair by pair. */
import { spawn } from 'node:child_process'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'

export interface Usage {
  /** From the start of the process to the line `done` on its output, in milliseconds. */
  readonly wallMs: number
  /** User and system time of the whole process, in milliseconds. */
  readonly cpuMs: number
  readonly peakKiB: number
}

export type Quantity = keyof Usage

/** What changes Node's start-up or its trust, and would be measured with the program. */
const unwanted = [
  'NODE_EXTRA_CA_CERTS',
  'SSL_CERT_FILE',
  'SSL_CERT_DIR',
  'NODE_OPTIONS',
  'NODE_COMPILE_CACHE',
]

export const cleanEnvironment = (): NodeJS.ProcessEnv =>
  Object.fromEntries(Object.entries(process.env).filter(([name]) => !unwanted.includes(name)))

export const programPath = (name: string): string =>
  fileURLToPath(new URL(`./${name}.js`, import.meta.url))

/** Runs one of the programs beside this file. @throws Error when it fails. */
export async function measure(
  program: string,
  settings: Readonly<Record<string, string>>,
): Promise<Usage> {
  const began = performance.now()
  const child = spawn(
    process.execPath,
    ['--import', programPath('usage'), programPath(program), JSON.stringify(settings)],
    { env: cleanEnvironment(), stdio: ['ignore', 'pipe', 'pipe', 'pipe'] },
  )
  let wallMs = Number.NaN
  child.stdout?.on('data', (chunk: Buffer) => {
    if (chunk.toString().includes('done')) wallMs = performance.now() - began
  })
  const [usage, complaint, code] = await Promise.all([
    text(child.stdio[3] as NodeJS.ReadableStream),
    text(child.stderr as NodeJS.ReadableStream),
    new Promise((resolve) => child.once('exit', resolve)),
  ])
  if (code !== 0 || Number.isNaN(wallMs)) throw new Error(`${program} failed: ${complaint}`)
  return { wallMs, ...JSON.parse(usage) }
}

export const median = (values: readonly number[]): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return sorted.length % 2 === 1
    ? (sorted[Math.floor(middle)] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
}

export interface Spread {
  readonly median: number
  readonly least: number
  readonly most: number
}

export const spread = (values: readonly number[]): Spread => ({
  median: median(values),
  least: Math.min(...values),
  most: Math.max(...values),
})

const quantities: readonly Quantity[] = ['wallMs', 'cpuMs', 'peakKiB']

export type Summary = Readonly<Record<Quantity, Spread>>

const eachQuantity = (values: (quantity: Quantity) => number[]): Summary =>
  Object.fromEntries(quantities.map((one) => [one, spread(values(one))])) as Record<
    Quantity,
    Spread
  >

export const summary = (runs: readonly Usage[]): Summary =>
  eachQuantity((quantity) => runs.map((run) => run[quantity]))

/** Ratios within pairs, so that a machine whose speed drifts does not disturb them. */
export const ratios = (runs: readonly Usage[], references: readonly Usage[]): Summary =>
  eachQuantity((quantity) =>
    runs.map((run, at) => run[quantity] / (references[at] as Usage)[quantity]),
  )
