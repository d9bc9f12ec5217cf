/**
 * One consumer: hand it the identity, wake it, ask whether it is well, else give back what it had.
 *
 * What is unchanged and was well is not touched. A crash at any point is mended by the next run: a
 * set that is not proven is woken and asked again.
 */
import { createHash } from 'node:crypto'
import type { Clock, Credential } from '@certvend/client'
import type { ConsumerSettings } from './consumer-settings.ts'
import { isConfigurationError, toFailure } from './failure.ts'
import { isCurrent, isProven, prove, putSet, takeBack, type Wanted } from './file-set.ts'
import { filesOf } from './formats.ts'
import { pkcs12File } from './pkcs12.ts'
import type { Run } from './run-program.ts'
import { ownerOf } from './users.ts'

export interface ConsumerResult {
  readonly name: string
  /**
   * `unchanged`: not touched. `delivered`: it has the new identity and is well. `rolled-back`: it was
   * not, and has the one before again. `unhealthy`: it was not, and there was none before. `failed`:
   * nothing of it was changed.
   */
  readonly state: 'unchanged' | 'delivered' | 'rolled-back' | 'unhealthy' | 'failed'
  /** Of the certificate that it was to get. */
  readonly certificateId: string
  /** Why not, in a sentence; no output of any program. */
  readonly reason?: string
}

export interface Delivery {
  readonly run: Run
  readonly clock: Clock
  readonly signal: AbortSignal
}

/** Hands `credential` to one consumer. Rejects only when `signal` aborts. */
export async function deliver(
  consumer: ConsumerSettings,
  credential: Credential,
  delivery: Delivery,
): Promise<ConsumerResult> {
  const { name, directory } = consumer
  const result = (state: ConsumerResult['state'], reason?: string): ConsumerResult => ({
    name,
    state,
    certificateId: credential.certificateId,
    ...(reason === undefined ? {} : { reason }),
  })
  try {
    const wanted = wantedSet(consumer, credential)
    if (!isCurrent(wanted)) putSet(wanted)
    else if (isProven(directory)) return result('unchanged')
  } catch (error) {
    return result('failed', inWords(error))
  }
  try {
    const reason = await wake(consumer, delivery)
    if (reason === undefined) {
      prove(directory)
      return result('delivered')
    }
    if (!takeBack(directory)) return result('unhealthy', reason)
    const again = await wake(consumer, delivery)
    return result(
      'rolled-back',
      again === undefined ? reason : `${reason}; with the identity before it, too: ${again}`,
    )
  } catch (error) {
    delivery.signal.throwIfAborted()
    return result('unhealthy', inWords(error))
  }
}

/** Whether handing `credential` to this consumer would change or wake anything. */
export function isSettled(consumer: ConsumerSettings, credential: Credential): boolean {
  return isCurrent(wantedSet(consumer, credential)) && isProven(consumer.directory)
}

function inWords(error: unknown): string {
  if (isConfigurationError(error) && error.hint) return `${error.message} (${error.hint})`
  return toFailure(error).message.split('\n', 1)[0] ?? ''
}

/** The set that this consumer is to have. */
export function wantedSet(consumer: ConsumerSettings, credential: Credential): Wanted {
  const { format, options, directory, mode } = consumer
  const owner = ownerOf(consumer)
  const { thingName, deviceSerial, certificateChain, endpoint, keyOrigin } = credential
  const source = [
    [format, options, directory, mode, owner],
    [thingName, deviceSerial, certificateChain, endpoint, keyOrigin],
  ]
  return {
    directory,
    digest: createHash('sha256').update(JSON.stringify(source)).digest('hex'),
    secret: { mode, ...(owner ? { owner } : {}) },
    files: (home) => {
      const files = filesOf(format, credential, options, home)
      if (format !== 'pkcs12') return files
      const { passwordFile } = options
      return files.map(({ data }) => pkcs12File(String(data), { alias: thingName, passwordFile }))
    },
  }
}

/** Between two looks at a program that is not well yet, in milliseconds. */
const lookEveryMs = 500
/** A unit is well when it was active at each look for this long, in milliseconds. */
const steadyMs = 2000

/** Makes the program read its files, and waits until it is well; why not, else nothing. */
async function wake(consumer: ConsumerSettings, delivery: Delivery): Promise<string | undefined> {
  const { wake: how, health, timeLimitMs, directory } = consumer
  const { run, signal } = delivery
  const options = { signal, limitMs: timeLimitMs, directory }
  if (how && 'command' in how) {
    const why = await run(how.command, options)
    if (why !== undefined) return `${how.command[0]} ${why}`
  }
  if (how && 'unit' in how) {
    const asks = (verb: string) => run(systemctl(verb, how.unit), options)
    const active = (await asks('is-active')) === undefined
    const failed = !active && (await asks('is-failed')) === undefined
    if (active || failed) await asks('reset-failed') // or systemd counts our restarts against it
    const verb = failed
      ? 'restart'
      : how.action === 'reload'
        ? 'try-reload-or-restart'
        : 'try-restart'
    const why = await asks(verb)
    if (why !== undefined) return `systemctl ${verb} ${how.unit} ${why}`
    // One that does not run reads the new files when it is started.
    if (!active && !failed && (await asks('is-active')) !== undefined) return undefined
  }
  if (health) return await becomesWell(health, { consumer, delivery, steadyForMs: 0 })
  if (how && 'unit' in how)
    return await becomesWell(systemctl('is-active', how.unit), {
      consumer,
      delivery,
      steadyForMs: steadyMs,
    })
  return undefined
}

const systemctl = (verb: string, unit: string): string[] => [
  '/usr/bin/systemctl',
  '--quiet',
  verb,
  '--',
  unit,
]

async function becomesWell(
  health: readonly string[],
  how: { consumer: ConsumerSettings; delivery: Delivery; steadyForMs: number },
): Promise<string | undefined> {
  const { consumer, delivery, steadyForMs } = how
  const { run, clock, signal } = delivery
  const { timeLimitMs: limitMs, directory } = consumer
  const end = clock.now().getTime() + limitMs
  let why: string | undefined
  let wellSince: number | undefined
  for (;;) {
    why = await run(health, { signal, limitMs, directory })
    const now = clock.now().getTime()
    wellSince = why === undefined ? (wellSince ?? now) : undefined
    if (wellSince !== undefined && now - wellSince >= steadyForMs) return undefined
    if (now >= end) return `${health.at(0)} ${why ?? 'was not steady'} for ${limitMs / 1000} s`
    await clock.wait(lookEveryMs, signal)
  }
}
