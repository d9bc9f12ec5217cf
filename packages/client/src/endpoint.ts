/** An MQTT server's address in one word, as people write it: `host`, `host:port`, `[::1]:port`. */
import { amazonTrustAnchors, parseTrustAnchors } from './trust.ts'
import type { Endpoint } from './wire.ts'

/** Asked for on port 443, where IoT Core serves more than MQTT with client certificates. */
const mqttAlpn = 'x-amzn-mqtt-ca'

/**
 * Makes an endpoint.
 *
 * @param address host name or IP address, and a port: 8883 without one. On 443 IoT Core's ALPN
 *   protocol is asked for.
 * @param trustAnchors PEM of the only CAs that may vouch for the server; by default Amazon Root CA
 *   1 and 3, which vouch for every `…-ats.iot.<region>.amazonaws.com`.
 * @throws TypeError when the address is none, or an anchor is not a CA.
 */
export function createEndpoint(address: string, trustAnchors?: string): Endpoint {
  const [, bracketed, plain, digits] =
    /^(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9.-]{1,253}))(?::(\d{1,5}))?$/.exec(address.trim()) ?? []
  const host = bracketed ?? plain
  const port = Number(digits ?? 8883)
  if (host === undefined || port < 1 || port > 65_535)
    throw new TypeError('an endpoint is host, host:port or [IPv6 address]:port')
  return {
    host,
    port,
    ...(port === 443 ? { alpn: mqttAlpn } : {}),
    trustAnchors: (trustAnchors === undefined
      ? amazonTrustAnchors()
      : parseTrustAnchors(trustAnchors)
    ).certificates.map(String),
  }
}
