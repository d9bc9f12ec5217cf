/**
 * A sign of life with facts about this machine's health, every so often while a session is open; off by
 * default. It is sent with QoS 0 and forgotten: what is lost is made good by the next one.
 */
import { statfsSync } from 'node:fs'
import { freemem, loadavg, totalmem, uptime } from 'node:os'
import {
  type Clock,
  type Credential,
  isCertvendError,
  type Lifetime,
  renewalDue,
  type Session,
} from '@certvend/client'
import type { MqttSettings } from './config.ts'
import { type Log, loggedFailure } from './log.ts'
import { version } from './version.ts'

const defaultTopic = 'certvend/{thingName}/heartbeat'

export interface HeartbeatOptions {
  readonly mqtt: MqttSettings
  readonly clock: Clock
  readonly log: Log
  /** For the disk's free space. */
  readonly stateDirectory: string
  /** Aborts when the session is over or left. */
  readonly signal: AbortSignal
}

type Whose = Pick<Credential, 'thingName'> & Lifetime

/** What is published, as JSON. Instants are ISO 8601. */
function healthOf(
  credential: Whose,
  { now, since, stateDirectory }: { now: Date; since: Date; stateDirectory: string },
): Record<string, unknown> {
  return {
    thingName: credential.thingName,
    agent: version,
    time: now,
    onlineSince: since,
    certificateNotAfter: credential.notAfter,
    certificateRenewalDue: renewalDue(credential),
    uptimeSeconds: Math.round(uptime()),
    load1: Math.round((loadavg()[0] ?? 0) * 100) / 100,
    memoryFreeBytes: freemem(),
    memoryTotalBytes: totalmem(),
    ...diskOf(stateDirectory),
  }
}

function diskOf(directory: string): { diskFreeBytes?: number; diskTotalBytes?: number } {
  try {
    const { bavail, blocks, bsize } = statfsSync(directory)
    return { diskFreeBytes: bavail * bsize, diskTotalBytes: blocks * bsize }
  } catch {
    return {} // a disk that does not answer is no reason to be silent about the rest
  }
}

/** Beats until the signal aborts; resolves then. Nothing to do when it is off. */
export async function beat(
  session: Session,
  credential: Whose | undefined,
  { mqtt, clock, log, stateDirectory, signal }: HeartbeatOptions,
): Promise<void> {
  const { heartbeatSeconds } = mqtt
  if (!heartbeatSeconds || !credential) return
  const { thingName } = credential
  const topic = (mqtt.heartbeatTopic ?? defaultTopic).replaceAll('{thingName}', thingName)
  const since = clock.now()
  while (!signal.aborted) {
    const health = healthOf(credential, { now: clock.now(), since, stateDirectory })
    try {
      await session.publish(topic, JSON.stringify(health), { qos: 0, signal })
    } catch (error) {
      if (signal.aborted) return
      if (!isCertvendError(error)) throw error
      if (error.code !== 'ERR_SESSION_LOST')
        log({ event: 'publish.refused', topic, ...loggedFailure(error) })
      return // the next session tries again
    }
    await clock.wait(heartbeatSeconds * 1000, signal).catch(() => {})
  }
}
