/** What both roads share: an address, names, routes, a proxy, a portal. */
import { isIP } from 'node:net'
import type { Trace } from '@certvend/client/trace'
import type { Evidence } from '../evidence.ts'
import { type Check, type Finding, unknown, type Verdict } from '../finding.ts'

/** MQTT first, where there is a credential: it is what being online takes. */
export const roads = ({ mqtt, vending }: Evidence): Trace[] =>
  [mqtt, vending].filter((road) => road !== undefined)

const isHere = (host: string): boolean =>
  host === 'localhost' || host.endsWith('.localhost') || /^(127\.|::1$)/.test(host)

/** Node's codes in a failure's cause, of each address that was tried. */
export function codesOf({ failure }: Trace): string[] {
  const cause = failure?.cause
  const all = cause instanceof AggregateError ? cause.errors : [cause]
  return all.flatMap((one) => {
    const { code } = (one ?? {}) as { code?: unknown }
    return typeof code === 'string' ? [code] : []
  })
}

/** Nobody at the other end was reached. */
const isCutOff = (road: Trace): boolean => road.reached === 'nothing' || road.reached === 'name'

const nothingToReach = unknown('nothing to reach is known')

/** The first road of which `judge` has a finding. */
function along(evidence: Evidence, judge: (road: Trace) => Finding | undefined): Verdict {
  const all = roads(evidence)
  if (all.length === 0) return nothingToReach
  for (const road of all) {
    const finding = judge(road)
    if (finding) return finding
  }
  return 'fine'
}

export const network: Check = {
  name: 'network',
  symptom: 'Nothing can be reached: the device has no address',
  looks: 'Whether any interface but the loopback has an address, when something cannot be reached.',
  advice: 'Look at the cable, the Wi-Fi and DHCP: `ip address`, `networkctl`, `nmcli device`.',
  judge(evidence) {
    const cutOff = roads(evidence).filter((road) => isCutOff(road) && !isHere(road.host))
    if (roads(evidence).length === 0) return nothingToReach
    if (cutOff.length === 0 || evidence.addresses.length > 0) return 'fine'
    return {
      found: 'no interface has an address, beside the loopback',
      expected: 'an address by cable, Wi-Fi or modem',
      mend: 'look at the cable, the Wi-Fi and DHCP: ip address; networkctl or nmcli device',
      care: 'wait',
    }
  },
}

export const dns: Check = {
  name: 'dns',
  symptom: 'cannot find the address of … (ENOTFOUND, EAI_AGAIN)',
  looks: 'Whether the names of both servers, or of the proxy that leads to them, are found.',
  advice:
    '`resolvectl query HOST` or `getent hosts HOST`. ENOTFOUND: the name is not known, look at its spelling. EAI_AGAIN: the name server did not answer, look at `/etc/resolv.conf` and the way there.',
  after: ['network'],
  judge: (evidence) =>
    along(evidence, ({ name, host }) => {
      if (name.addresses.length > 0 || isIP(name.host) > 0) return undefined
      const spelt = name.code === 'ENOTFOUND'
      return {
        found: `the name ${name.host} is not found (${name.code})`,
        expected: spelt ? 'a name that the name server knows' : 'a name server that answers',
        mend: spelt
          ? `look at its spelling${name.host === host ? '' : ' in HTTPS_PROXY'}, and ask: getent hosts ${name.host}`
          : `look at the name server: cat /etc/resolv.conf; getent hosts ${name.host}`,
        care: 'wait',
      }
    }),
}

export const route: Check = {
  name: 'route',
  symptom: 'cannot reach … (ENETUNREACH, EHOSTUNREACH)',
  looks: 'Whether there is a route to the addresses that were found.',
  advice:
    '`ip route get ADDRESS` says what is missing: usually the default route, which DHCP brings.',
  after: ['network', 'dns'],
  judge: (evidence) =>
    along(evidence, (road) => {
      const codes = codesOf(road)
      const none = codes.length > 0 && codes.every((code) => /^E(NET|HOST)UNREACH$/.test(code))
      if (!isCutOff(road) || !none) return undefined
      const [address = road.host] = road.name.addresses
      return {
        found: `no route leads to ${address} (${codes[0]})`,
        expected: 'a default route, by DHCP or by hand',
        mend: `look at the routes: ip route get ${address}; ip route`,
        care: 'wait',
      }
    }),
}

export const proxy: Check = {
  name: 'proxy',
  symptom: 'ERR_PROXY',
  looks: 'Whether HTTPS_PROXY can be used, and the proxy opens the way to both servers.',
  advice:
    '[Getting through](getting-through.md#proxies) has every answer of a proxy and what to do about it.',
  after: ['network', 'dns'],
  judge(evidence) {
    const { proxy: named } = evidence
    if (named && !named.ok)
      return {
        found: named.error.message,
        expected: 'a proxy that speaks HTTP, or none',
        mend: named.error.hint ?? 'see HTTPS_PROXY',
        care: 'configure',
      }
    return along(evidence, ({ failure, host, port }) =>
      failure?.code === 'ERR_PROXY'
        ? {
            found: failure.message,
            expected: `a proxy that opens the way to ${host}:${port}`,
            mend: failure.hint,
            care:
              failure.remedy === 'retry' && /cannot reach/.test(failure.message) ? 'wait' : 'act',
          }
        : undefined,
    )
  },
}

const withoutTls =
  /^ERR_SSL_(WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG|UNKNOWN_PROTOCOL)$/

/** Something answers in the place of the server: HTTP, or a certificate for somebody else. */
export const isImpostor = (road: Trace): boolean =>
  codesOf(road).some((code) => withoutTls.test(code)) ||
  (road.failure?.code === 'ERR_SERVER_UNTRUSTED' && road.failure.remedy === 'retry')

export const captivePortal: Check = {
  name: 'captive-portal',
  symptom: 'Something else answers in place of every server',
  looks:
    'Whether what answers is a portal: HTTP where TLS is due, or the certificate of somebody else.',
  advice:
    'Sign this device in to the network; one without a browser is signed in by its MAC address, at the portal’s owner. It goes on by itself afterwards.',
  judge(evidence) {
    const all = roads(evidence)
    if (all.length === 0) return nothingToReach
    // A portal answers for every server, and on the ports of the web.
    const verified = all.some(({ reached }) => reached === 'secured')
    const portal = verified
      ? undefined
      : all.find((road) => isImpostor(road) && (road.port !== 8883 || all.every(isImpostor)))
    if (!portal) return 'fine'
    const shown = portal.chain[0]
    return {
      found: shown
        ? `at ${portal.host}:${portal.port} answers somebody else, with a certificate for ${shown.subject}`
        : `at ${portal.host}:${portal.port} answers something that does not speak TLS`,
      expected: `${portal.host} itself`,
      mend: portal.failure?.hint ?? 'sign this device in to the network',
      care: 'wait',
    }
  },
}
