/** `certvend enroll`: this device's certificate, asked for once; later calls only read. */
import {
  type Credential,
  type CredentialStore,
  type EnrollEvent,
  enroll as enrollOnce,
  ensureCredential,
  openCredentialStore,
  systemClock,
} from '@certvend/client'
import { readDialect } from '../dialect.ts'
import { type Enrollment, plainHttp, readEnrollment, refuseExpiredPins } from '../enrollment.ts'
import { configurationError, type ExitCode } from '../failure.ts'
import { loggedFailure } from '../log.ts'
import { proxyPlace } from '../proxy.ts'
import { renewHere } from '../renew-here.ts'
import { readSerial } from '../serial.ts'
import { type Flags, resolveSettings, type Settings } from '../settings.ts'
import { untilStopped } from '../signals.ts'
import { type CredentialDocument, describeCredential } from '../status.ts'
import type { Terminal } from '../terminal.ts'
import { hasAgent, throughAgent } from '../through-agent.ts'
import { readToken } from '../token.ts'
import { day, inWords } from '../wording.ts'

export async function enroll(
  flags: Flags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ExitCode> {
  const settings = await resolveSettings(flags, environment)
  proxyPlace(environment)
  const store = await openCredentialStore(settings.stateDirectory)
  try {
    const stored = store.current()
    if (stored && !flags.again) {
      refuseOtherSerial(stored, settings, environment)
      terminal.progress('already enrolled; nobody was asked')
      terminal.out(credentialText(stored, store.directory, flags))
      return 0
    }
    if (await hasAgent(settings.socketDirectory)) {
      const told = await askAgent(flags, settings, environment)
      terminal.out(shown(told, store.directory, flags))
      return 0
    }
    const enrollment = readEnrollment(settings, environment)
    refuseExpiredPins(enrollment, systemClock.now())
    return await untilStopped(terminal, async (signal) => {
      const credential = stored
        ? await renewHere(
            store,
            { do: 'renew', by: 'claim', ...(flags.discard ? { discard: true } : {}) },
            { settings, environment, terminal, signal },
          )
        : await enrollHere(store, enrollment, { flags, terminal, signal })
      terminal.out(credentialText(credential, store.directory, flags))
      return 0
    })
  } finally {
    store.close()
  }
}

/** The first certificate. */
function enrollHere(
  store: CredentialStore,
  { server, claim }: Enrollment,
  { flags, terminal, signal }: { flags: Flags; terminal: Terminal; signal: AbortSignal },
): Promise<Credential> {
  if (server.url.protocol === 'http:') terminal.warn(...plainHttp(server.url))
  const options = { signal, log: progressTo(terminal), ...(flags.again ? { again: true } : {}) }
  return (flags.once ? enrollOnce : ensureCredential)(store, server, claim, options)
}

function refuseOtherSerial(
  { deviceSerial }: Credential,
  { serial, stateDirectory }: Settings,
  environment: NodeJS.ProcessEnv,
): void {
  // What nobody wrote down cannot contradict what is stored.
  if (serial.kind === 'default') return
  const { value, from } = readSerial(serial, { environment })
  if (value !== deviceSerial)
    throw configurationError(
      `${from}: ${stateDirectory} already holds the credential of ${deviceSerial}`,
      'give each device a state directory of its own: --state-dir DIR',
    )
}

/** On a terminal, asking again takes the place of the wait before it. */
function progressTo(terminal: Terminal): (event: EnrollEvent) => void {
  let asked = false
  return (event) => {
    if (event.event === 'enroll.retry') {
      const { error, waitMs } = event
      const line = inWords({ event: 'enroll.retry', ...loggedFailure(error), waitMs })
      terminal.progress(line, { passing: true })
    } else terminal.progress(inWords(event), { passing: asked && event.event === 'enroll.request' })
    asked ||= event.event === 'enroll.request'
  }
}

/** It asks by its own configuration, and takes a token from here, as it may not read a file of root's. */
async function askAgent(
  flags: Flags,
  settings: Settings,
  environment: NodeJS.ProcessEnv,
): Promise<CredentialDocument> {
  if (flags.server ?? flags.pin ?? flags.serial)
    throw configurationError(
      'an agent runs on this state directory and asks by its own configuration',
      'leave out --server, --pin and --serial; to change them: agent.toml, then certvend reload',
    )
  const dialect = readDialect(settings.dialect).name
  const token =
    flags.tokenFile && settings.tokenFile && readToken(settings.tokenFile, environment, dialect)
  const request = {
    do: 'enroll' as const,
    ...(flags.again ? { again: true } : {}),
    ...(flags.discard ? { discard: true } : {}),
    ...(token ? { token } : {}),
  }
  return (await throughAgent(settings.socketDirectory, request)) as CredentialDocument
}

const credentialText = (credential: Credential, stateDirectory: string, flags: Flags): string =>
  shown(describeCredential(credential), stateDirectory, flags)

/** The result, for people or for programs. */
export function shown(
  credential: CredentialDocument,
  stateDirectory: string,
  { json }: Flags,
): string {
  if (json) return JSON.stringify({ ...credential, stateDirectory }, undefined, 2)
  const { deviceSerial, thingName, certificateId, notAfter } = credential
  return [
    `enrolled ${deviceSerial} as ${thingName}`,
    `  certificate  ${certificateId}`,
    `  valid until  ${day(new Date(notAfter))}`,
    `  stored in    ${stateDirectory}`,
  ].join('\n')
}
