/** Which of x509-limbo's SERVER cases are not run, and which are judged otherwise, with the reasons. */

/** What the runner reads of a case. */
export interface LimboCase {
  readonly id: string
  readonly features: readonly string[]
  readonly validation_kind: 'SERVER' | 'CLIENT'
  readonly validation_time: string | null
  readonly expected_result: 'SUCCESS' | 'FAILURE'
  readonly expected_peer_name: { readonly kind: string; readonly value: string } | null
  readonly peer_certificate_key: string | null
}

const byId = (prefix: string, reason: string, names: string): [string, string][] =>
  names.split(' ').map((name) => [`${prefix}${name}`, reason])

const caDuty =
  'breaks a duty of the CA that path validation (RFC 5280 section 6) does not ask after'
const webPki =
  "breaks the CA/Browser Forum's profile for public web servers, which the CA of a private fleet need not follow"
const suffix = 'needs the Public Suffix List'
const names =
  'a malformed name beside the one that is asked for, which OpenSSL reads as people mean it'

const listed: ReadonlyMap<string, string> = new Map([
  ...byId('rfc5280::aki::', caDuty, 'leaf-missing-aki intermediate-missing-aki'),
  ...byId('rfc5280::aki::', caDuty, 'cross-signed-root-missing-aki'),
  ...byId('rfc5280::ski::', caDuty, 'root-missing-ski intermediate-missing-ski'),
  ...byId('rfc5280::serial::', caDuty, 'too-long zero'),
  ...byId('rfc5280::nc::', caDuty, 'permitted-dns-match-noncritical'),
  ...byId('rfc5280::nc::', caDuty, 'not-allowed-in-ee-noncritical not-allowed-in-ee-critical'),
  ...byId('rfc5280::', caDuty, 'pc::ica-noncritical-pc san::noncritical-with-empty-subject'),
  ...byId('rfc5280::', caDuty, 'root-non-critical-basic-constraints leaf-ku-keycertsign'),
  ...byId('rfc5280::san::', caDuty, 'underscore-dns'),
  ...byId('rfc5280::nc::', names, 'invalid-dnsname-leading-period nc-permits-invalid-dns-san'),
  ...byId('webpki::aki::root-with-aki-', webPki, 'missing-keyidentifier authoritycertissuer'),
  ...byId('webpki::aki::root-with-aki-', webPki, 'authoritycertserialnumber all-fields'),
  ...byId('webpki::aki::root-with-aki-', webPki, 'ski-mismatch'),
  ...byId('webpki::cn::ipv4-', webPki, 'hex-mismatch leading-zeros-mismatch'),
  ...byId('webpki::cn::ipv6-', webPki, 'uppercase-mismatch uncompressed-mismatch'),
  ...byId('webpki::cn::', webPki, 'ipv6-non-rfc5952-mismatch punycode-not-in-san'),
  ...byId('webpki::cn::', webPki, 'utf8-vs-punycode-mismatch not-in-san case-mismatch'),
  ...byId('webpki::eku::', webPki, 'ee-anyeku ee-critical-eku ee-without-eku root-has-eku'),
  ...byId(
    'webpki::nc::intermediate-permitted-excluded-subtrees-both-',
    webPki,
    'null empty-sequences',
  ),
  ...byId('webpki::', webPki, 'san::san-critical-with-nonempty-subject malformed-aia'),
  ...byId('webpki::forbidden-rsa-', webPki, 'not-divisible-by-8-in-root'),
  ...byId('webpki::forbidden-rsa-', webPki, 'key-not-divisible-by-8-in-leaf'),
  ...byId('webpki::', webPki, 'ee-basicconstraints-ca'),
  ...byId('webpki::san::public-suffix-', suffix, 'multi-label-wildcard-san'),
  ...byId('webpki::san::public-suffix-', suffix, 'private-namespace-wildcard-san'),
  ...byId(
    'pathlen::max-chain-depth-',
    'needs a limit on the length of chains; the client sets none beside pathLenConstraint',
    '0-exhausted 1-exhausted',
  ),
])

/** Why a case is not run, or nothing. */
export function exclusion(
  one: LimboCase,
  { canMoveClock }: { canMoveClock: boolean },
): string | undefined {
  if (!one.peer_certificate_key)
    return "comes without the server's key, so it cannot be served over TLS"
  if (one.features.includes('has-crl'))
    return 'needs a revocation list; the client consults none (a pinned CA is replaced, not revoked)'
  if (!one.expected_peer_name) return 'names no server to expect, and the client always expects one'
  if (one.validation_time !== null && !canMoveClock)
    return 'needs another time than now, and faketime is not installed'
  return listed.get(one.id)
}

const asLeaf =
  'shows a CA certificate as the server, whose key usage allows no TLS; OpenSSL refuses it for that purpose'
const onePath =
  'two paths are possible; OpenSSL takes the one that name constraints forbid and does not go back'
const lastSecond = 'in its very last second; OpenSSL counts a certificate as expired then'

/** Cases that x509-limbo accepts and the client rejects, with the reason: it errs on the safe side. */
export const explanations: Readonly<Record<string, string>> = {
  'pathlen::validation-ignores-pathlen-in-leaf': asLeaf,
  'rfc5280::ca-as-leaf': asLeaf,
  'rfc5280::nc::nc-forbids-alternate-chain-ica': onePath,
  'rfc5280::nc::nc-forbids-same-chain-ica': onePath,
  'rfc5280::validity::notafter-exact': lastSecond,
  'rfc5280::validity::notafter-fractional': lastSecond,
}
