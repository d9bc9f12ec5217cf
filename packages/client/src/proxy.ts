/**
 * Which HTTP proxy leads out of this network: the option, else the environment.
 *
 * The environment is `HTTPS_PROXY` and `NO_PROXY`, in lower case first as with curl. Credentials in a
 * proxy's URL are secrets: they leave this file in one header only.
 */
import { BlockList, isIP } from 'node:net'
import type { TrustAnchors } from './trust.ts'

/** How connections leave this network, for both halves: HTTPS and MQTT. */
export interface ProxyOptions {
  /**
   * `http://` or `https://`, with Basic credentials if need be: everything goes through it, whatever
   * the environment says. `false`: no proxy. Default: `HTTPS_PROXY`, save for the hosts of `NO_PROXY`
   * and for this machine itself.
   *
   * @throws TypeError from whatever connects, when it cannot be used.
   */
  readonly proxy?: URL | false
  /** Who may vouch for an `https://` proxy, and for nothing else. Default: the CAs that Node trusts. */
  readonly proxyAnchors?: TrustAnchors
}

/** A proxy that leads to a server by CONNECT. */
export interface HttpProxy {
  /** Without brackets. */
  readonly host: string
  readonly port: number
  /** Whether it is spoken to over TLS. */
  readonly secure: boolean
  /** Host and port, for messages. */
  readonly place: string
  /** The value of `Proxy-Authorization`, a secret. */
  authorization(): string | undefined
}

export type Environment = Readonly<Record<string, string | undefined>>

export const withoutBrackets = (host: string): string => host.replace(/^\[|\]$/g, '')

/** `host:port`, an IPv6 address in brackets (RFC 3986 section 3.2.2). */
export function authority(host: string, port: number): string {
  const bare = withoutBrackets(host)
  return `${isIP(bare) === 6 ? `[${bare}]` : bare}:${port}`
}

/**
 * The proxy to be used for `host` and `port`, if any.
 *
 * @throws TypeError when the option or `HTTPS_PROXY` is not a proxy's URL; the message does not hold it.
 */
export function proxyFor(
  { host, port }: { readonly host: string; readonly port: number },
  { proxy }: ProxyOptions,
  environment: Environment = process.env,
): HttpProxy | undefined {
  if (proxy === false) return undefined
  if (proxy) return parseProxy(proxy.href, 'the proxy')
  const value = environment.https_proxy || environment.HTTPS_PROXY
  if (!value) return undefined
  const name = withoutBrackets(host).toLowerCase().replace(/\.$/, '')
  if (isThisMachine(name)) return undefined
  if (isExempt(name, port, environment.no_proxy || environment.NO_PROXY || '')) return undefined
  return parseProxy(value, 'HTTPS_PROXY')
}

function parseProxy(text: string, called: string): HttpProxy {
  const refuse = (what: string): TypeError => new TypeError(`${called} ${what}`)
  const full = text.includes('://') ? text : `http://${text}`
  if (!URL.canParse(full)) throw refuse('is not a URL')
  const { protocol, hostname, port, username, password, pathname, search, hash } = new URL(full)
  if (protocol !== 'http:' && protocol !== 'https:')
    throw refuse(`must start with http:// or https://, not with ${protocol}//`)
  if (pathname !== '/' || search || hash)
    throw refuse('must not have a path, a query or a fragment')
  const secure = protocol === 'https:'
  const host = withoutBrackets(hostname)
  const number = Number(port || (secure ? 443 : 80))
  let credentials: string | undefined
  try {
    if (username || password)
      credentials = `${decodeURIComponent(username)}:${decodeURIComponent(password)}`
  } catch {
    throw refuse('has credentials that are not percent-encoded')
  }
  return {
    host,
    port: number,
    secure,
    place: authority(host, number),
    authorization: () =>
      credentials === undefined
        ? undefined
        : `Basic ${Buffer.from(credentials, 'utf8').toString('base64')}`,
  }
}

const family = (address: string): 'ipv4' | 'ipv6' => (isIP(address) === 6 ? 'ipv6' : 'ipv4')

function isThisMachine(host: string): boolean {
  if (isIP(host) === 0) return host === 'localhost' || host.endsWith('.localhost')
  const loopback = new BlockList()
  loopback.addSubnet('127.0.0.0', 8, 'ipv4')
  loopback.addAddress('::1', 'ipv6')
  return loopback.check(host, family(host))
}

/**
 * Whether `NO_PROXY` names `host`: `*`; a domain, with all that is below it, a leading dot or `*.`
 * making no difference; an address; a range such as `10.0.0.0/8`; each but the last with a port if
 * need be. Separated by commas or white space.
 */
function isExempt(host: string, port: number, noProxy: string): boolean {
  return noProxy
    .toLowerCase()
    .split(/[\s,]+/)
    .some((entry) => {
      if (entry === '*') return true
      const [, bracketed, plain, itsPort] = /^(?:\[(.*)\]|([^:]*))(?::(\d+))?$/.exec(entry) ?? []
      if (itsPort !== undefined && Number(itsPort) !== port) return false
      const name = bracketed ?? plain ?? entry // what is left is an IPv6 address without brackets
      return isIP(host) > 0 ? holdsAddress(name, host) : isBelow(host, name)
    })
}

function isBelow(host: string, entry: string): boolean {
  const domain = entry.replace(/^\*?\./, '').replace(/\.$/, '')
  return domain !== '' && (host === domain || host.endsWith(`.${domain}`))
}

function holdsAddress(entry: string, address: string): boolean {
  const [network = '', bits] = entry.split('/')
  if (isIP(network) === 0) return false
  const list = new BlockList()
  try {
    if (bits === undefined) list.addAddress(network, family(network))
    else list.addSubnet(network, Number(bits), family(network))
  } catch {
    return false
  }
  return list.check(address, family(address))
}
