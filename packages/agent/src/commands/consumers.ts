/** `certvend consumers run` and `check`: the identity, handed to the programs in `[[consumers]]`. */
import { type Credential, readUntrustedStore, systemClock } from '@certvend/client'
import { isSettled } from '../consumer.ts'
import type { ConsumerSettings } from '../consumer-settings.ts'
import {
  type ConsumersRecord,
  consumersPlaces,
  eraseHandedOn,
  isWell,
  judgeConfigurationOwner,
  resultInWords,
  runConsumers,
} from '../consumers.ts'
import { type ExitCode, toFailure } from '../failure.ts'
import { judgeSetDirectory } from '../file-set.ts'
import { runProgram } from '../run-program.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { stopOnSignals } from '../signals.ts'
import type { Terminal } from '../terminal.ts'

/**
 * systemd names the unit's own directories in the variables that elsewhere name the agent's, so they
 * are taken out before the settings are read.
 */
function places(environment: NodeJS.ProcessEnv) {
  const { STATE_DIRECTORY, RUNTIME_DIRECTORY, ...rest } = environment
  return {
    markDirectory: STATE_DIRECTORY ?? consumersPlaces.mark,
    recordDirectory: RUNTIME_DIRECTORY ?? consumersPlaces.record,
    rest,
  }
}

/** Rounds in a row, each because the identity changed during the one before. */
const mostRounds = 10

/** 0: all are well. 1: one is not. 2: a mistake in the configuration. */
export async function consumersRun(
  flags: Flags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ExitCode> {
  const { markDirectory, recordDirectory, rest } = places(environment)
  const { consumers, configFile, stateDirectory } = await resolveSettings(flags, rest)
  if (configFile === undefined || consumers.length === 0)
    return nothing(terminal, 'no [[consumers]] are configured')
  judgeConfigurationOwner(configFile)
  const present = () => readUntrustedStore(stateDirectory, systemClock.now())
  let credential = present()
  if (!credential) return nothing(terminal, `${stateDirectory} holds no credential yet`)
  const stop = stopOnSignals()
  const handOn = (credential: Credential): Promise<ConsumersRecord> =>
    runConsumers(consumers, {
      credential,
      run: runProgram(),
      clock: systemClock,
      signal: stop.signal,
      recordDirectory,
      markDirectory,
      onResult: (result) => {
        if (!flags.json) terminal.progress(resultInWords(result))
      },
    })
  try {
    let record = await handOn(credential)
    // systemd sees no change of the link while its unit runs.
    for (let rounds = 1; rounds < mostRounds; rounds++) {
      const next = present()
      if (!next || next.certificateId === credential.certificateId) break
      credential = next
      record = await handOn(credential)
    }
    if (flags.json) terminal.out(JSON.stringify(record, undefined, 2))
    return record.consumers.every(isWell) ? 0 : 1
  } finally {
    stop.release()
  }
}

function nothing(terminal: Terminal, why: string): ExitCode {
  terminal.progress(`${why}: nothing to hand on`)
  return 0
}

/** Takes back what was handed on: for a gateway that is given away, beside `certvend forget`. */
export async function consumersErase(
  _flags: Flags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ExitCode> {
  const directories = eraseHandedOn(places(environment).markDirectory)
  for (const directory of directories) terminal.progress(`erased: ${directory}`)
  if (directories.length === 0) terminal.progress('nothing was handed on')
  return 0
}

/** Says what a run would do; writes nothing. */
export async function consumersCheck(
  flags: Flags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ExitCode> {
  const { rest } = places(environment)
  const { consumers, configFile, stateDirectory } = await resolveSettings(flags, rest)
  if (configFile === undefined || consumers.length === 0)
    return nothing(terminal, 'no [[consumers]] are configured')
  judgeConfigurationOwner(configFile)
  const credential = readUntrustedStore(stateDirectory, systemClock.now())
  let code: ExitCode = 0
  const rows = consumers.map((consumer) => {
    try {
      judgeSetDirectory(consumer.directory)
      const would = !credential
        ? 'waits for the first credential'
        : isSettled(consumer, credential)
          ? 'would be left alone'
          : `would be given ${credential.thingName}, then ${wakeInWords(consumer)}`
      return { name: consumer.name, directory: consumer.directory, ok: true, would }
    } catch (error) {
      const { message, hint } = toFailure(error)
      code = 2
      return { name: consumer.name, directory: consumer.directory, ok: false, message, hint }
    }
  })
  if (flags.json) terminal.out(JSON.stringify({ version: 1, consumers: rows }, undefined, 2))
  else
    for (const row of rows)
      terminal.out(
        row.ok
          ? `${row.name}: ${row.would} (${row.directory})`
          : `${row.name}: ${row.message}${row.hint ? `\n  hint: ${row.hint}` : ''}`,
      )
  return code
}

function wakeInWords({ wake, health }: ConsumerSettings): string {
  const woken = !wake
    ? 'left to read it by itself'
    : 'unit' in wake
      ? `systemctl ${wake.action} ${wake.unit}`
      : wake.command.join(' ')
  return health ? `${woken}, then asked by ${health.join(' ')}` : woken
}
