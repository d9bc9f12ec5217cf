/** `certvend run`: the daemon in the foreground, as systemd wants it. */
import { uptime } from 'node:os'
import { isDeepStrictEqual } from 'node:util'
import {
  type CredentialStore,
  monotonicMs,
  openCredentialStore,
  systemClock,
} from '@certvend/client'
import { runAgent } from '../agent.ts'
import { openAnswers } from '../answers.ts'
import { openAwsCache } from '../aws-cache.ts'
import { dialectName } from '../dialect.ts'
import { readEnrollment, readVendingServer, waysOf } from '../enrollment.ts'
import { openErrands } from '../errands.ts'
import { type ExitCode, isConfigurationError } from '../failure.ts'
import { openRecorder, type Recorder } from '../journal.ts'
import { openJournal } from '../journal-file.ts'
import { watchLive } from '../live.ts'
import { type Log, openLog } from '../log.ts'
import { keepMetrics, metricsText } from '../metrics.ts'
import { openNotify } from '../notify.ts'
import { proxyPlace } from '../proxy.ts'
import { type Flags, resolveSettings, type Settings } from '../settings.ts'
import { reloadOnHangup, stopOnSignals } from '../signals.ts'
import { openDoors } from '../socket.ts'
import { type StatusDocument, statusOf } from '../status.ts'
import type { Terminal } from '../terminal.ts'
import { bootTokens, importToken } from '../token.ts'
import { installedAt, version } from '../version.ts'

export async function run(
  flags: Flags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ExitCode> {
  const { signal, release } = stopOnSignals()
  const clock = systemClock
  const notify = openNotify(environment)
  const live = watchLive(clock, () => {
    notify.status(live.inWords())
    if (live.settled()) notify.ready()
  })
  let closeDoors: (() => void) | undefined
  // From the first moment: what hangs up before there is anything to reload must not end us.
  let reload = async (): Promise<void> => {}
  const releaseHangup = reloadOnHangup(() => void reload())
  try {
    let settings = await resolveSettings(flags, environment)
    proxyPlace(environment)
    const json = flags.json === true || !terminal.interactive
    const write = openLog((line) => terminal.out(line), { json, clock })
    let recorder: Recorder | undefined
    let measure: (() => void) | undefined
    const log: Log = (event) => {
      write(event)
      live.log(event)
      recorder?.log(event)
      measure?.()
      if (event.event === 'forget.done') recorder = undefined // what it knows is forgotten, too
    }
    const { stateDirectory } = settings
    const store = await openCredentialStore(stateDirectory)
    log({ event: 'agent.start', version, stateDirectory: store.directory })
    signal.addEventListener('abort', () => notify.stopping())
    if (!store.current() && !settings.tokenFile)
      await importToken(bootTokens, {
        stateDirectory,
        log,
        dialect: dialectName(settings.dialect),
      })

    let again = new AbortController()
    reload = async () => {
      const read = await readAgain(flags, environment, log)
      if (!read) return
      const matters = !isDeepStrictEqual(read.mqtt, settings.mqtt)
      settings = read
      log({ event: 'config.reloaded' })
      // Who is online stays online, unless it is about how; everybody else tries at once.
      if (matters || live.document().connection !== 'online') again.abort()
    }

    const statusNow = (): StatusDocument => {
      const lastFailure = recorder?.episodes().at(-1)
      return {
        ...statusOf(store, clock.now(), waysOf(settings)),
        live: live.document(),
        ...(lastFailure ? { lastFailure } : {}),
      }
    }

    // Only who holds the lock keeps the journal.
    const record = (): void => {
      recorder ??= openRecorder(openJournal(store.directory, clock), {
        clock,
        monotonicMs,
        version,
        installedAt: installedAt(),
        ...issuedAtOf(store),
        bootedAt: new Date(clock.now().getTime() - uptime() * 1000),
      })
    }
    const { metricsFile } = settings
    if (metricsFile !== undefined) {
      const keep = keepMetrics(metricsFile, ({ message }) =>
        write({ event: 'metrics.unwritable', message }),
      )
      measure = () => keep(metricsText(live.document(), store.current()))
    }
    const errands = openErrands()
    signal.addEventListener('abort', () => errands.close())
    const answer = openAnswers({
      store,
      errands,
      awsCredentials: openAwsCache(clock),
      status: statusNow,
      reload: () => void reload(),
    })

    do {
      again = new AbortController()
      await runAgent({
        store,
        enrollment: (token) => readEnrollment(settings, environment, token),
        vendingServer: () => readVendingServer(settings),
        renew: () => settings.renew,
        errands,
        signal: AbortSignal.any([signal, again.signal]),
        log,
        mqtt: settings.mqtt,
        once: flags.once === true,
        ...(notify.aliveEveryMs === undefined ? {} : { turnEveryMs: notify.aliveEveryMs / 2 }),
        onTurn(waitedMs) {
          live.waited(waitedMs)
          if (store.current()) record()
          recorder?.look()
          if (!live.stuck()) notify.alive()
        },
        async onHeld() {
          record()
          closeDoors ??= await openDoors(settings.socketDirectory, answer, { log }).catch(
            (error: Error) => {
              log({ event: 'socket.unusable', message: error.message })
              return undefined
            },
          )
        },
      })
    } while (again.signal.aborted && !signal.aborted)
    const message = signal.aborted ? (signal.reason as Error).message : 'published once, as asked'
    log({ event: 'agent.stop', message })
    return 0
  } finally {
    closeDoors?.()
    releaseHangup()
    release()
  }
}

const issuedAtOf = (store: CredentialStore): { issuedAt?: Date } => {
  const current = store.current()
  return current ? { issuedAt: current.issuedAt } : {}
}

async function readAgain(
  flags: Flags,
  environment: NodeJS.ProcessEnv,
  log: Log,
): Promise<Settings | undefined> {
  try {
    return await resolveSettings(flags, environment)
  } catch (error) {
    if (!isConfigurationError(error)) throw error
    log({ event: 'config.refused', message: error.message })
    return undefined
  }
}
