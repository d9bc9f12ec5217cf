/** Events, instants and durations as a person reads them. */
import type { LogEvent } from './log.ts'

/** One line: lower case, no final period. */
export function inWords(event: LogEvent): string {
  switch (event.event) {
    case 'agent.start':
      return `certvend ${event.version}, state in ${event.stateDirectory}`
    case 'agent.stop':
      return event.message
    case 'store.mended':
      return `mended the store: ${event.message}`
    case 'store.unwritable':
      return `${event.message}; the stored credential is used all the same (${event.code})`
    case 'credential.found':
      return `using the credential of ${event.thingName}, valid until ${day(event.notAfter)}`
    case 'claim.unusable':
      return `${event.message}; waiting for somebody to mend it`
    case 'token.imported':
      return `moved the token from ${event.path} into the state directory`
    case 'token.unusable':
      return `left ${event.path} alone: ${event.message}`
    case 'token.exposed':
      return `remove ${event.path} yourself: ${event.message}`
    case 'token.destroyed':
      return `destroyed ${event.path}, which has served`
    case 'server.plain':
      return `${event.host} is asked over plain HTTP: whoever is on the way can read the token and the private key, and can put others in their place`
    case 'socket.unusable':
      return `certvend status will not reach this agent: ${event.message}`
    case 'socket.failed':
      return `a question was not answered, by a defect of certvend; please report this line: ${event.message}`
    case 'metrics.unwritable':
      return `no metrics are kept: ${event.message}`
    case 'config.reloaded':
      return 'read the configuration again'
    case 'config.refused':
      return `kept the configuration as it was: ${event.message}`
    case 'enroll.key':
      return 'made a private key and stored it'
    case 'enroll.request':
      return `asking ${event.host} for a certificate`
    case 'enroll.retry':
      return `${because(event)}; asking again in ${duration(event.waitMs)}`
    case 'enroll.done':
      return `stored the certificate of ${event.thingName}`
    case 'session.open':
      return `connected to ${event.host}:${event.port} as ${event.thingName}`
    case 'session.lost':
    case 'session.retry':
      return `${because(event)}; connecting again in ${duration(event.waitMs)}`
    case 'session.closed':
      return 'disconnected'
    case 'publish.acknowledged':
      return `published to ${event.topic}`
    case 'renew.proven':
      return `${event.thingName} has proven its new certificate, valid until ${day(event.notAfter)}`
    case 'renew.unproven':
      return `the new certificate opened no session, the one before is used: ${event.message} (${event.code})`
    case 'renew.failed':
      return `no new certificate, the one in use stays: ${because(event)}`
    case 'renew.retry':
      return `no new certificate yet, the one in use stays: ${because(event)}; asking again in ${duration(event.waitMs)}`
    case 'renew.needed':
      return `it is time to renew the certificate, and that is not done by itself: ${event.message}; ${event.hint}`
    case 'forget.done':
      return `removed key and certificate from ${event.stateDirectory}; certvend enroll starts anew`
    case 'forget.untold':
      return `the vending machine was not told: ${because(event)}`
    case 'publish.refused':
      return `${event.message} (${event.code})`
  }
}

const because = ({ message, code, remedy, hint }: Extract<LogEvent, { remedy: string }>): string =>
  `${message} (${code})${remedy === 'operator' ? `; ${hint}` : ''}`

/** `2027-11-22`. */
export const day = (date: Date): string => date.toISOString().slice(0, 10)

/** `2027-11-22 14:03:20`, where this device is. */
export const clockTime = (instant: string): string => {
  const at = new Date(instant)
  const local = new Date(at.getTime() - at.getTimezoneOffset() * 60_000).toISOString()
  return local.slice(0, 19).replace('T', ' ')
}

/** `0.4 s`, `12 s`, `4 min`, `3 h`, `90 days`. */
export function duration(ms: number): string {
  const seconds = ms / 1000
  if (seconds < 1) return `${seconds.toFixed(1)} s`
  if (seconds < 90) return `${Math.round(seconds)} s`
  if (seconds < 90 * 60) return `${Math.round(seconds / 60)} min`
  if (seconds < 48 * 3600) return `${Math.round(seconds / 3600)} h`
  return `${Math.floor(seconds / 86_400)} days`
}
