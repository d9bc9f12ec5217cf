/**
 * What stands in between, told by what it shows: captive portals, inspecting proxies, blocked ports.
 *
 * Judges only, and only for people: nothing here makes a connection trusted or not.
 */
import { X509Certificate } from 'node:crypto'
import { isIP } from 'node:net'
import { CertvendError } from './errors.ts'

export interface Encounter {
  /** Without brackets. */
  readonly host: string
  readonly port: number
  /** The proxy's host and port, if there was one. */
  readonly proxy?: string | undefined
  /** The certificate that was shown, DER, whoever vouches for it. */
  readonly shown?: Buffer | undefined
}

const wire = /^ERR_SSL_(WRONG_VERSION_NUMBER|HTTP_REQUEST|PACKET_LENGTH_TOO_LONG|UNKNOWN_PROTOCOL)$/

/** The same failure, with what can be told of its reason. */
export function explain(failure: CertvendError, encounter: Encounter): CertvendError {
  const { host, port, proxy } = encounter
  const code = (failure.cause as { code?: unknown } | undefined)?.code
  const better = (message: string, hint: string, remedy = failure.remedy): CertvendError =>
    new CertvendError(failure.code, message, { cause: failure.cause, hint, remedy })
  const signIn = proxy
    ? `a captive portal, or what proxy ${proxy} leads to: sign in to the network, or look at the proxy's way out`
    : 'a captive portal answers for every host: sign in to the network; else check the host name and port'

  const untrusted =
    failure.code === 'ERR_SERVER_UNTRUSTED' && code !== 'ERR_TLS_CERT_ALTNAME_INVALID'
  const shown = untrusted && encounter.shown ? new X509Certificate(encounter.shown) : undefined
  if (shown)
    return names(shown, host)
      ? better(
          `${failure.message}: the certificate shown was issued by ${issuerOf(shown)}`,
          `compare that issuer with the expected CA; if it is an inspecting ${proxy ? 'proxy' : 'firewall'}'s, exempt ${host} from inspection`,
        )
      : // Whoever this is, it is not the server under a wrong CA: another network may lead to that.
        better(
          `${failure.message}: the certificate shown is for ${nameOf(shown)}`,
          `something else answers in place of ${host}: ${signIn}`,
          'retry',
        )
  if (failure.code === 'ERR_NETWORK' && wire.test(String(code)))
    return better(`${failure.message}: what answers there does not speak TLS`, signIn)
  if (failure.code === 'ERR_NETWORK' && /ALERT_NO_APPLICATION_PROTOCOL/.test(String(code)))
    return better(
      failure.message,
      'the server does not offer the ALPN protocol it was asked for: compare endpoint.alpn and the port',
    )
  if (/^ERR_(NETWORK|TIMEOUT)$/.test(failure.code) && port === 8883 && !isResolution(code))
    return better(
      failure.message,
      'many networks let out port 443 only: AWS IoT Core answers MQTT there too, with ALPN x-amzn-mqtt-ca; or set HTTPS_PROXY',
    )
  return failure
}

const isResolution = (code: unknown): boolean => code === 'ENOTFOUND' || code === 'EAI_AGAIN'

const names = (certificate: X509Certificate, host: string): boolean =>
  (isIP(host) > 0 ? certificate.checkIP(host) : certificate.checkHost(host)) !== undefined

/** A stranger's words: printable, short, in quotes. */
const quote = (text: string): string =>
  `"${text
    .replace(/[^\x20-\x7e]+/g, ' ')
    .replaceAll('"', "'")
    .slice(0, 80)}"`

const commonName = (name: string): string | undefined => /^CN=(.*)$/m.exec(name)?.[1]

const nameOf = ({ subject, subjectAltName }: X509Certificate): string =>
  quote(
    subjectAltName?.replace(/\b(DNS|IP Address):/g, '') ?? commonName(subject ?? '') ?? 'no name',
  )

const issuerOf = ({ issuer }: X509Certificate): string =>
  quote(commonName(issuer ?? '') ?? (issuer ?? '').replaceAll('\n', ', '))
