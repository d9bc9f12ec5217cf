/** What is found at the end of both roads: ports, TLS, the vending machine, the broker. */
import type { Trace } from '@certvend/client/trace'
import { type Evidence, enrolledAs } from '../evidence.ts'
import { type Check, type Finding, unknown, type Verdict } from '../finding.ts'
import { isImpostor } from './network.ts'

const before = ['clock', 'network', 'dns', 'route', 'proxy', 'captive-portal']
const notEnrolled = unknown('there is no credential yet')
const noUrl = unknown('no vending server is named, or none that can be used')

const place = ({ host, port, proxy }: Trace): string =>
  `${host}:${port}${proxy ? ` (through proxy ${proxy})` : ''}`

/** No address of the host took a connection. */
const isDeaf = ({ reached, failure }: Trace): boolean =>
  reached === 'name' && /^ERR_(NETWORK|TIMEOUT)$/.test(failure?.code ?? '')

const silent = (road: Trace): string =>
  road.failure?.code === 'ERR_TIMEOUT'
    ? `nobody answers at ${place(road)} (${road.name.addresses.join(', ')})`
    : `${place(road)} does not take connections: ${road.failure?.message}`

export const mqttPort: Check = {
  name: 'mqtt-port',
  symptom: 'Not online: the MQTT server cannot be reached',
  looks: 'Whether the MQTT server takes a TCP connection on its port, and 443 beside it.',
  advice:
    'Refused: the broker is down, or the address is not its own. Silent: a firewall drops port 8883; AWS IoT Core answers MQTT on 443 as well, with ALPN `x-amzn-mqtt-ca`.',
  after: before,
  judge({ mqtt, mqtt443, vending }) {
    if (!mqtt) return notEnrolled
    if (!isDeaf(mqtt)) return 'fine'
    const dropped = mqtt.failure?.code === 'ERR_TIMEOUT'
    const open = mqtt443 && mqtt443.reached !== 'name'
    const other = vending?.reached === 'secured' && vending.port === 443
    return {
      found: `${silent(mqtt)}${open ? '; its port 443 answers' : other ? '; port 443 is let out elsewhere' : ''}`,
      expected: `a connection to port ${mqtt.port} of ${mqtt.host}`,
      mend: dropped
        ? `let port ${mqtt.port} out, or have port 443 with ALPN x-amzn-mqtt-ca vended as the endpoint: docs/getting-through.md#ports`
        : `look whether the broker runs; from here: curl -v telnet://${mqtt.host}:${mqtt.port}`,
      care: dropped ? 'act' : 'wait',
    }
  },
}

/** A handshake that failed, after somebody had answered. */
function tlsFinding(road: Trace, anchors: 'pin' | 'trust anchor'): Finding | undefined {
  const { failure, chain, reached } = road
  if (!failure || reached === 'nothing' || reached === 'name') return undefined
  if (failure.code === 'ERR_CLOCK' || failure.code === 'ERR_PROXY') return undefined
  const [shown] = chain
  if (shown)
    return {
      found: `${failure.message}; shown was ${shown.subject} (SHA-256 ${shown.sha256.slice(0, 16)}…) by ${shown.issuer}`,
      expected: `a certificate for ${road.host} that a ${anchors} vouches for`,
      mend: failure.hint,
      care: failure.remedy === 'retry' ? 'wait' : 'act',
    }
  return {
    found: isImpostor(road)
      ? `${place(road)} does not speak TLS`
      : `${place(road)} takes the connection and does not complete TLS (${failure.message})`,
    expected: `TLS with ${road.host}`,
    mend: failure.hint,
    care: failure.code === 'ERR_CREDENTIAL_REFUSED' ? 'act' : 'wait',
  }
}

export const mqttTls: Check = {
  name: 'mqtt-tls',
  symptom: 'Not online: the MQTT server does not prove itself',
  looks: 'Whether one of the endpoint’s trust anchors vouches for the MQTT server.',
  advice:
    'The anchors came with the certificate. If the server’s CA has changed since, enroll again; if an inspecting firewall stands in between, exempt the host.',
  after: before,
  judge: ({ mqtt }) => (mqtt ? (tlsFinding(mqtt, 'trust anchor') ?? 'fine') : notEnrolled),
}

export const vendingPort: Check = {
  name: 'vending-port',
  symptom: 'It does not enroll: the vending server cannot be reached',
  looks: 'Whether the vending server takes a TCP connection.',
  advice: 'Compare host and port with the operator’s. Silent: a firewall drops the port.',
  after: before,
  judge({ vending }) {
    if (!vending) return noUrl
    if (!isDeaf(vending)) return 'fine'
    const dropped = vending.failure?.code === 'ERR_TIMEOUT'
    return {
      found: silent(vending),
      expected: `a connection to port ${vending.port} of ${vending.host}`,
      mend: dropped
        ? `let port ${vending.port} out: a firewall in between drops packets`
        : `compare host and port with the operator's; from here: curl -v telnet://${vending.host}:${vending.port}`,
      care: 'wait',
    }
  },
}

export const vendingTls: Check = {
  name: 'vending-tls',
  symptom: 'ERR_SERVER_UNTRUSTED',
  looks: 'Which pin vouches for the vending server, or why none does.',
  advice:
    'Compare the issuer that was shown with the pin: `openssl x509 -in PIN.pem -noout -subject -fingerprint -sha256`. Another CA of the operator’s: add it to `pins`. One that nobody knows: a firewall inspects TLS; exempt the host.',
  after: [...before, 'pins', 'pin-expiry'],
  judge({ vending, parts }) {
    if (!vending) return noUrl
    const finding = tlsFinding(vending, 'pin')
    if (!finding) return 'fine'
    const pinned = (parts?.pins ?? []).flatMap(({ read }) => (read.ok ? read.value : []))
    const words = pinned.map(
      ({ subject, sha256 }) => `${subject} (SHA-256 ${sha256.slice(0, 16)}…)`,
    )
    return vending.chain.length > 0 && words.length > 0
      ? { ...finding, expected: `${finding.expected}: ${words.join(', ')}` }
      : finding
  },
}

export const dialect: Check = {
  name: 'dialect',
  symptom: 'ERR_REPLY_MALFORMED',
  looks: 'Whether a vending machine answers at the URL, in the dialect that is configured.',
  advice:
    'Check the URL with its path: a reverse proxy’s page, another site, or a vending machine of another kind may answer there.',
  after: ['vending-url', ...before, 'vending-port', 'vending-tls'],
  judge({ vending, spoken, parts }) {
    if (!vending) return noUrl
    if (vending.reached !== 'secured') return unknown('nobody was verified there')
    const wanted = parts?.dialect.ok ? parts.dialect.value.name : 'certvend'
    const failure = vending.answer?.failure
    const wrong = /^ERR_(REPLY_MALFORMED|REQUEST_REFUSED)$/.test(failure?.code ?? '')
    if (spoken === wanted || (wanted === 'certvend' && !wrong)) return 'fine'
    if (spoken === undefined && !wrong) return unknown('which dialect it speaks was not told')
    const other = spoken !== undefined && spoken !== 'unknown'
    return {
      found: other
        ? `${vending.host} speaks the dialect ${spoken}`
        : (failure?.message ?? `${vending.host} answers in no dialect that is known`),
      expected: `a vending machine of the dialect ${wanted}`,
      mend: other
        ? `dialect = "${spoken}" in agent.toml, or --dialect ${spoken}; certvend probe URL says more`
        : `${failure?.hint ?? 'check the URL with its path'}; certvend probe URL says more`,
      care: 'configure',
    }
  },
}

export const vendingServer: Check = {
  name: 'vending-server',
  symptom: 'ERR_SERVER_BUSY, or a connection that breaks',
  looks: 'Whether the vending machine is well, as far as anybody may ask.',
  advice:
    'Nothing is wrong with the device; it asks again by itself. The operator looks at the server’s log.',
  after: ['vending-url', ...before, 'vending-port', 'vending-tls', 'dialect'],
  judge({ vending }) {
    if (!vending) return noUrl
    const failure = vending.answer?.failure
    if (!failure) return 'fine'
    return {
      found: failure.message,
      expected: 'an answer',
      mend: failure.hint,
      care: 'wait',
    }
  },
}

/** The last refusal that is not over: the running agent's, else the journal's. */
export function lastRefusal({ daemon, history }: Evidence) {
  const live = daemon?.status?.live
  if (live) return live.connection === 'online' ? undefined : live.problem
  const last = history.at(-1)
  return last && last.ended === undefined ? last : undefined
}

const refusal = (evidence: Evidence, codes: RegExp): ReturnType<typeof lastRefusal> => {
  const last = lastRefusal(evidence)
  return last && codes.test(last.code) ? last : undefined
}

export const claim: Check = {
  name: 'claim',
  symptom: 'ERR_CLAIM_REFUSED or ERR_CLAIM_SPENT',
  looks:
    'What the vending server said of serial and token when the agent last asked. Doctor does not send the token.',
  advice:
    '`certvend-server device show SERIAL` says what the server knows. Spent by this device, before its state directory was lost: `device rearm SERIAL`. Spent by another: somebody else holds its token.',
  judge(evidence) {
    if (enrolledAs(evidence)) return unknown('not needed: a credential is held')
    const last = refusal(evidence, /^ERR_(CLAIM_|KEY_REFUSED|REQUEST_REFUSED|CERTIFICATE_MISMATCH)/)
    if (!last) return unknown('the token was not sent, and no refusal is remembered')
    return {
      found: `${last.message} (${last.code})`,
      expected: 'a claim that is open',
      mend: last.hint,
      care: 'act',
    }
  },
}

export const pending: Check = {
  name: 'pending',
  symptom: 'Accepted, and no certificate comes',
  looks: 'Whether a request waits for somebody’s decision, or for a time that the server named.',
  advice:
    'The operator approves the device: `certvend-server device show SERIAL`. It asks again by itself.',
  judge(evidence): Verdict {
    if (enrolledAs(evidence)) return 'fine'
    const last = refusal(evidence, /^ERR_DEFERRED$/)
    const request = evidence.pending?.state === 'requested' ? evidence.pending.request : undefined
    const until = request?.notBefore
    if (!last && !(until && until > evidence.now)) return 'fine'
    return {
      found: last
        ? `${last.message} (${last.code})`
        : `the vending server asked for patience until ${until?.toISOString()}`,
      expected: 'a certificate',
      mend: 'ask the operator to approve this device: certvend-server device show SERIAL; it asks again by itself',
      care: 'wait',
    }
  },
}
