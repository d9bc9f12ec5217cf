/**
 * Connecting as this device, where nobody else does: the one way to see what the broker's policy says.
 * The status topic gets the farewell that the daemon would say, which is true: it does not run.
 */
import {
  type Clock,
  type Credential,
  connect,
  isCertvendError,
  type Session,
} from '@certvend/client'
import type { MqttSettings } from '../config.ts'
import { presenceOf } from '../presence.ts'
import type { SessionTrial } from './evidence.ts'

/** For somebody else with this client id to come back, in milliseconds. */
const lingerMs = 2000
const answerMs = 5000

export async function trySession(
  credential: Credential,
  {
    mqtt,
    clock,
    signal,
    deadlineMs,
  }: { mqtt: MqttSettings; clock: Clock; signal: AbortSignal; deadlineMs: number },
): Promise<SessionTrial> {
  const presence = presenceOf(credential.thingName, mqtt)
  let session: Session
  try {
    session = await connect(credential, { signal, clock, deadlineMs, ...keepAlive(mqtt) })
  } catch (failure) {
    if (!isCertvendError(failure)) throw failure
    return { outcome: 'refused', failure }
  }
  try {
    const end = await within(lingerMs, clock, session.ended)
    if (end?.reason === 'lost') return { outcome: 'thrown-out', failure: end.error }
    if (!presence) return { outcome: 'opened' }
    const { topic, offline, retain } = presence
    const said = session.publish(topic, offline, { retain }).then(
      () => undefined,
      (error: unknown) => error,
    )
    const failure = await within(answerMs, clock, said)
    return isCertvendError(failure)
      ? { outcome: 'publish-ended', topic, failure }
      : { outcome: 'opened', topic }
  } finally {
    await session.close()
  }
}

const keepAlive = ({ keepAliveSeconds }: MqttSettings) =>
  keepAliveSeconds === undefined ? {} : { keepAliveSeconds }

/** What `promise` comes to, or nothing when it takes longer than `ms`. */
async function within<T>(ms: number, clock: Clock, promise: Promise<T>): Promise<T | undefined> {
  const settled = new AbortController()
  try {
    return await Promise.race([
      promise,
      clock.wait(ms, settled.signal).then(
        () => undefined,
        () => undefined,
      ),
    ])
  } finally {
    settled.abort()
  }
}
