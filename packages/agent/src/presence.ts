/**
 * Presence: one small message when a session opens, one when we leave, and the same as a last will,
 * which the server publishes when we vanish (MQTT 3.1.1 section 3.1.2.5).
 */
import type { Will } from '@certvend/client'
import type { MqttSettings } from './config.ts'
import { version } from './version.ts'

const defaultTopic = 'certvend/{thingName}/status'

export interface Presence {
  readonly topic: string
  readonly retain: boolean
  /** JSON: `{"online":true,"thingName":…,"agent":"0.1.0","since":<ISO 8601>}`. */
  online(now: Date): string
  /** JSON: `{"online":false,"thingName":…}`. */
  readonly offline: string
  /** The last words where the credential is given up: as offline, and `"forgotten":true`. */
  readonly forgotten: string
  readonly will: Will
}

/** Nothing when the configured topic is empty. */
export function presenceOf(thingName: string, settings: MqttSettings): Presence | undefined {
  const topic = (settings.statusTopic ?? defaultTopic).replaceAll('{thingName}', thingName)
  if (topic === '') return undefined
  const retain = settings.retainStatus ?? false
  const offline = JSON.stringify({ online: false, thingName })
  return {
    topic,
    retain,
    online: (now) => JSON.stringify({ online: true, thingName, agent: version, since: now }),
    offline,
    forgotten: JSON.stringify({ online: false, thingName, forgotten: true }),
    will: { topic, payload: offline, qos: 1, retain },
  }
}
