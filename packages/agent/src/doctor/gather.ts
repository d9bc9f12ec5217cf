/** Gathers the evidence: this machine first, then both roads at once, each for a bounded time. */
import {
  amazonTrustAnchors,
  type Clock,
  type Credential,
  createVendingServer,
  inspectStore,
  isCertvendError,
} from '@certvend/client'
import {
  type Trace,
  traceMqttServer,
  traceVendingServer,
  type VendingTrace,
} from '@certvend/client/trace'
import { ownAddresses } from '../addresses.ts'
import { consumersPlaces, readConsumersRecord } from '../consumers.ts'
import { outlookOf } from '../due.ts'
import { readPin, waysOf } from '../enrollment.ts'
import { configurationError, isConfigurationError } from '../failure.ts'
import { readJournal } from '../journal-file.ts'
import { proxyPlace } from '../proxy.ts'
import { type Flags, resolveSettings, type Settings } from '../settings.ts'
import { describeRenewal, type StatusDocument } from '../status.ts'
import { version } from '../version.ts'
import type { ClaimParts, Evidence, Read } from './evidence.ts'
import { attempt, openFiles, readParts, readSpace, readStore } from './local.ts'
import { askDaemon, readUnit } from './system.ts'
import { trySession } from './trial.ts'

export interface GatherOptions {
  readonly environment: NodeJS.ProcessEnv
  readonly clock: Clock
  readonly signal: AbortSignal
  /** Told of each step that may take a while. */
  readonly onStep: (step: string) => void
}

/** For each step that waits for somebody else, in milliseconds; all of them stay below 30 s. */
const stepMs = 7000
const otherPortMs = 3000

export async function gather(flags: Flags, options: GatherOptions): Promise<Evidence> {
  const { environment, clock } = options
  const now = clock.now()
  const base = {
    now,
    version,
    user: process.getuid?.() ?? 0,
    addresses: ownAddresses() ?? [],
    proxy: attempt(() => proxyPlace(environment)),
  }
  let settings: Settings
  try {
    settings = await resolveSettings(flags, environment)
  } catch (error) {
    if (!isConfigurationError(error)) throw error
    return { ...base, settings: { ok: false, error }, openFiles: [], history: [] }
  }
  const { stateDirectory, socketDirectory } = settings
  options.onStep(`looking at ${stateDirectory}`)
  const store = inspectStore(stateDirectory)
  const held = await readStore(stateDirectory)
  const daemon = await askDaemon(socketDirectory)
  const unit = readUnit()
  const space = readSpace(stateDirectory)
  const handedOn = readConsumersRecord(consumersPlaces.record)
  const local: Evidence = {
    ...base,
    settings: { ok: true, value: settings },
    openFiles: openFiles(settings),
    parts: readParts(settings, environment),
    store,
    ...held,
    ...renewalOf(held.credential, daemon?.status, settings, now),
    ...(space ? { space } : {}),
    ...(daemon ? { daemon } : {}),
    ...(unit ? { unit } : {}),
    ...(handedOn ? { handedOn } : {}),
    history: history(stateDirectory, daemon?.status?.lastFailure),
  }
  if (!base.proxy.ok) return local
  const [vending, mqtt] = await Promise.all([
    lookAtVending(local, settings, options),
    lookAtMqtt(local, settings, options),
  ])
  return { ...local, ...vending, ...mqtt }
}

function renewalOf(
  credential: Credential | undefined,
  status: StatusDocument | undefined,
  settings: Settings,
  now: Date,
): Pick<Evidence, 'renewal'> {
  if (status?.renewal) return { renewal: status.renewal }
  return credential
    ? { renewal: describeRenewal(outlookOf(credential, waysOf(settings), now)) }
    : {}
}

function history(stateDirectory: string, last: Evidence['history'][number] | undefined) {
  let kept: Evidence['history'] = []
  try {
    kept = readJournal(stateDirectory)
  } catch {
    // Another user's; the daemon may have told the last one.
  }
  return last ? [...kept.filter(({ began }) => began !== last.began), last] : kept
}

async function lookAtVending(
  { parts }: Evidence,
  settings: Settings,
  { clock, signal, onStep }: GatherOptions,
): Promise<Pick<Evidence, 'vending' | 'spoken'>> {
  const url = parts?.url
  if (!url?.ok || !parts?.dialect.ok || url.value.protocol === 'http:') return {}
  const pins = usablePins(parts, settings)
  onStep(`looking at the way to ${url.value.host}`)
  // Without a usable pin nobody vouches; the way there is seen all the same, and TLS is not judged.
  const server = createVendingServer({
    url: url.value,
    pins: pins.ok ? pins.value : amazonTrustAnchors().pem,
    dialect: parts.dialect.value,
  })
  const road = { clock, signal, deadlineMs: stepMs }
  const vending = await traceVendingServer(server, road)
  if (!pins.ok) return vending.failure && !isTrust(vending) ? { vending } : {}
  if (!isDoubtful(vending)) return { vending }
  onStep(`asking ${url.value.host} which dialect it speaks`)
  const { probeVendingServer } = await import('@certvend/client/probe')
  try {
    const { dialects } = await probeVendingServer({ url: url.value, pins: pins.value }, road)
    // One server may stand in for several vending machines.
    const wanted = dialects.find((one) => one === server.dialect.name)
    return { vending, spoken: wanted ?? dialects[0] ?? 'unknown' }
  } catch (error) {
    if (!isCertvendError(error)) throw error
    return { vending }
  }
}

/** Verified, and not known to speak the dialect that is configured. */
const isDoubtful = ({ reached, answer }: VendingTrace): boolean =>
  reached === 'secured' &&
  (!answer || /^ERR_(REPLY_MALFORMED|REQUEST_REFUSED)$/.test(answer.failure?.code ?? ''))

const isTrust = ({ failure }: Trace): boolean => isCertvendError(failure, 'ERR_SERVER_UNTRUSTED')

function usablePins(parts: ClaimParts, settings: Settings): Read<string> {
  if (parts.pins.length === 0 || parts.pins.some(({ read }) => !read.ok))
    return { ok: false, error: configurationError('no usable pin') }
  return attempt(() => settings.pins.map(readPin).join('\n'))
}

async function lookAtMqtt(
  local: Evidence,
  settings: Settings,
  { clock, signal, onStep }: GatherOptions,
): Promise<Pick<Evidence, 'mqtt' | 'mqtt443' | 'trial' | 'untried'>> {
  const { credential, daemon, store } = local
  if (!credential) return {}
  const { endpoint } = credential
  onStep(`looking at the way to ${endpoint.host}:${endpoint.port}`)
  const road = { clock, signal, deadlineMs: stepMs }
  const mqtt = await traceMqttServer(endpoint, identityOf(credential), road)
  if (mqtt.reached !== 'secured') {
    const silent = mqtt.reached === 'name' && endpoint.port !== 443
    if (!silent) return { mqtt }
    const at443 = { ...endpoint, port: 443, alpn: 'x-amzn-mqtt-ca' }
    const mqtt443 = await traceMqttServer(at443, undefined, { ...road, deadlineMs: otherPortMs })
    return { mqtt, mqtt443 }
  }
  const untried = daemon?.status
    ? 'the running agent connects as this device, and is not disturbed'
    : daemon?.closedToUs || store?.lockedBy !== undefined
      ? 'another process holds the state directory, and may be connected'
      : 'uri' in credential.privateKey
        ? 'the key is in a token, which is left to whoever has its PIN'
        : credential.notAfter < local.now
          ? 'the certificate has expired'
          : undefined
  if (untried) return { mqtt, untried }
  onStep(`connecting to ${endpoint.host}:${endpoint.port} as ${credential.thingName}`)
  const trial = await trySession(credential, {
    mqtt: settings.mqtt,
    clock,
    signal,
    deadlineMs: stepMs,
  })
  return { mqtt, trial }
}

/** A key in a token is used by its own module, with a PIN; a look at the road does without. */
const identityOf = (credential: Credential): Credential | undefined =>
  'uri' in credential.privateKey ? undefined : credential
