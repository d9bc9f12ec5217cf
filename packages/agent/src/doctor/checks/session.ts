/** What the broker says to this device, once it has proven itself; and the agent. */
import { clockTime } from '../../wording.ts'
import type { Evidence } from '../evidence.ts'
import { type Check, unknown, type Verdict } from '../finding.ts'
import { lastRefusal } from './servers.ts'

const before = [
  'certificate',
  'mqtt-port',
  'mqtt-tls',
  'network',
  'dns',
  'route',
  'proxy',
  'captive-portal',
  'clock',
]

/** Why nothing is known of sessions, or nothing when something is. */
function silence({ credential, mqtt, trial, daemon, untried }: Evidence): Verdict | undefined {
  if (daemon?.status?.live) return undefined
  if (!credential) return unknown('there is no credential yet')
  if (trial) return undefined
  return unknown(untried ?? (mqtt ? 'the MQTT server was not reached' : 'nobody tried'))
}

const isOnline = ({ daemon }: Evidence): boolean => daemon?.status?.live?.connection === 'online'

export const session: Check = {
  name: 'session',
  symptom: 'ERR_SESSION_REFUSED: the broker closes before CONNACK',
  looks: 'Whether the broker lets this device in: by its running agent, else by one connection.',
  advice:
    '`aws iot describe-certificate --certificate-id ID` and `list-attached-policies` tell: unknown there, INACTIVE, REVOKED, PENDING_ACTIVATION, no policy, or one that does not allow `iot:Connect` for this client id. See [ERR_SESSION_REFUSED](errors.md#err_session_refused).',
  after: before,
  judge(evidence) {
    const quiet = silence(evidence)
    if (quiet) return quiet
    const { trial } = evidence
    const last = lastRefusal(evidence)
    const codes = /^ERR_(SESSION_REFUSED|CREDENTIAL_REFUSED|CERTIFICATE_MISMATCH|KEY_UNAVAILABLE)$/
    const refused =
      trial?.outcome === 'refused'
        ? trial.failure
        : last && codes.test(last.code)
          ? last
          : undefined
    if (!refused || (!trial && !evidence.credential && !evidence.daemon?.status?.credential))
      return 'fine'
    const id = evidence.credential?.certificateId
    return {
      found: `${refused.message} (${refused.code})`,
      expected: 'CONNACK: the certificate ACTIVE, with a policy that allows this client id',
      mend: /describe-certificate|wait:/.test(refused.hint)
        ? refused.hint
        : `${refused.hint}${id ? `; aws iot describe-certificate --certificate-id ${id}` : ''}`,
      care:
        refused.code === 'ERR_SERVER_BUSY' || /ERR_(NETWORK|TIMEOUT)/.test(refused.code)
          ? 'wait'
          : 'act',
    }
  },
}

export const publish: Check = {
  name: 'publish',
  symptom: 'The connection opens, and closes with the first publish',
  looks: 'Whether the status message is acknowledged: by the agent’s count, else by one farewell.',
  advice:
    'The policy does not allow `iot:Publish` to the status topic, or retained messages. Allow it, name another by `mqtt.status_topic`, or none: `status_topic = ""`.',
  after: [...before, 'session'],
  judge(evidence) {
    const quiet = silence(evidence)
    if (quiet) return quiet
    const { trial, daemon, settings } = evidence
    const live = daemon?.status?.live
    const silentTopic = settings.ok && settings.value.mqtt.statusTopic === ''
    const never =
      live !== undefined && !isOnline(evidence) && live.sessions > 0 && live.acknowledged === 0
    if (trial?.outcome !== 'publish-ended' && (!never || silentTopic)) return 'fine'
    return {
      found:
        trial?.outcome === 'publish-ended'
          ? `the session ended with the publish to ${trial.topic} (${trial.failure?.message})`
          : `${live?.sessions} sessions opened, and no publish was ever acknowledged`,
      expected: 'an acknowledgement (PUBACK)',
      mend: 'let the policy allow iot:Publish to the status topic (and iot:RetainPublish if retain_status is set), or set mqtt.status_topic = ""',
      care: 'act',
    }
  },
}

export const clientId: Check = {
  name: 'client-id',
  symptom: 'ERR_SESSION_TAKEN_OVER: two with one name throw each other out',
  looks: 'Whether sessions end soon after they open though nothing is wrong with them.',
  advice:
    'Look for a cloned disk image, or a test that borrowed the identity. Each device enrolls by itself; re-arm the clone under a serial of its own.',
  after: [...before, 'session', 'publish'],
  judge(evidence) {
    const quiet = silence(evidence)
    if (quiet) return quiet
    const { trial } = evidence
    const last = lastRefusal(evidence)
    const taken = last?.code === 'ERR_SESSION_TAKEN_OVER' ? last : undefined
    if (trial?.outcome !== 'thrown-out' && !taken) return 'fine'
    const name = evidence.credential?.thingName ?? evidence.daemon?.status?.credential?.thingName
    return {
      found: taken?.message ?? `the session of ${name} was ended while it was idle`,
      expected: `one connection with the client id ${name}`,
      mend: `look who else connects as ${name}: a cloned disk image, or a program that borrowed the identity`,
      care: 'act',
    }
  },
}

export const service: Check = {
  name: 'service',
  symptom: 'The agent does not run',
  looks: 'What systemd says of `certvend.service`, where there is one.',
  advice:
    '`systemctl status certvend` and `journalctl -u certvend -n 50` say why it ended; exit code 2 is its configuration.',
  judge({ unit, settings }) {
    if (!unit) return unknown('no systemd here, or no certvend.service')
    if (!settings.ok) return unknown('the configuration cannot be read')
    if (settings.value.socketDirectory !== '/run/certvend')
      return unknown('another state directory than the service’s')
    if (unit.load === 'masked')
      return {
        found: 'certvend.service is masked',
        expected: 'a service that may start',
        mend: 'systemctl unmask certvend && systemctl enable --now certvend',
        care: 'act',
      }
    if (unit.active === 'active' || unit.active === 'reloading') return 'fine'
    return {
      found: `certvend.service is ${unit.active} (${unit.sub}${unit.result === 'success' ? '' : `, ${unit.result}`}${unit.restarts > 0 ? `, restarted ${unit.restarts} times` : ''})`,
      expected: 'active (running)',
      mend:
        unit.active === 'failed' || unit.restarts > 0
          ? 'journalctl -u certvend -n 50 says why; then systemctl restart certvend'
          : `systemctl ${unit.file === 'enabled' ? 'start' : 'enable --now'} certvend`,
      care: unit.active === 'activating' ? 'wait' : 'act',
    }
  },
}

export const version: Check = {
  name: 'version',
  symptom: 'The agent is of another version than the command',
  looks: 'Whether the running agent is the version that is installed.',
  advice: '`systemctl restart certvend`: an upgrade by hand does not restart it.',
  judge({ daemon, version: ours }) {
    const live = daemon?.status?.live
    if (!live) return unknown('no agent answers')
    // Agents before 0.1.0 do not say.
    const theirs = live.version ?? 'an older one'
    if (theirs === ours) return 'fine'
    return {
      found: `the running agent is ${theirs}, this command is ${ours}`,
      expected: 'one version',
      mend: 'restart the agent: systemctl restart certvend',
      care: 'act',
    }
  },
}

export const agent: Check = {
  name: 'agent',
  symptom: 'Everything is well now, and the agent is not online yet',
  looks: 'What the running agent waits for.',
  advice: 'It tries again by itself; `systemctl reload certvend` makes it try at once.',
  after: [
    ...before,
    'session',
    'publish',
    'client-id',
    'claim',
    'pending',
    'vending-port',
    'vending-tls',
    'dialect',
    'vending-server',
  ],
  judge(evidence) {
    const live = evidence.daemon?.status?.live
    if (!live)
      return evidence.daemon?.closedToUs
        ? unknown('this user may not ask it: root and the group certvend may')
        : unknown('no agent answers')
    if (live.connection !== 'waiting' || !live.problem) return 'fine'
    return {
      found: `the agent is not online: ${live.problem.message} (${live.problem.code})`,
      expected: 'an agent that is online',
      mend: live.nextAt
        ? `it tries again at ${clockTime(live.nextAt)}; systemctl reload certvend makes it try at once`
        : live.problem.hint,
      care: live.problem.remedy === 'retry' ? 'wait' : 'act',
    }
  },
}
