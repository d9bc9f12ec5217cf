/**
 * The configurations that other programs read, as text. Pure.
 *
 * Names, host and paths were judged before: none holds a quote, a blank or a line break.
 */
import { configurationError } from './failure.ts'
import type { Material } from './formats.ts'

const lines = (...all: readonly (string | undefined)[]): string =>
  `${all.filter((line) => line !== undefined).join('\n')}\n`

/** `prefix-ats.iot.eu-west-1.amazonaws.com` says where it is. */
function regionOf({ credential, options }: Material): string | undefined {
  const host = /\.iot\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?$/.exec(credential.endpoint.host)
  return options.awsRegion ?? host?.[1]
}

function needed(value: string | undefined, option: string, format: string): string {
  if (value !== undefined) return value
  throw configurationError(
    `the format ${format} needs ${option}`,
    `--${option} on the command line, ${option.replaceAll('-', '_')} in [[consumers]]`,
  )
}

/** AWS IoT Device Client, `docs/CONFIG.md`: mode of the file 0640 or less, of the key 0600. */
export function deviceClientConfiguration({ credential, paths }: Material): string {
  const { endpoint, thingName } = credential
  const configuration = {
    endpoint: endpoint.host,
    cert: paths.certificate,
    key: paths.key,
    'root-ca': paths.anchors,
    'thing-name': thingName,
  }
  return `${JSON.stringify(configuration, undefined, 2)}\n`
}

/** Greengrass v2, "Run the installer … with an initial configuration file". JSON strings are YAML. */
export function greengrassConfiguration(material: Material): string {
  const { credential, options, paths } = material
  const { endpoint, thingName } = credential
  const quoted = JSON.stringify
  const region = needed(regionOf(material), 'aws-region', 'greengrass')
  const alias = needed(options.roleAlias, 'role-alias', 'greengrass')
  const provider = needed(options.credentialsEndpoint, 'credentials-endpoint', 'greengrass')
  return lines(
    '---',
    'system:',
    `  certificateFilePath: ${quoted(paths.certificate)}`,
    `  privateKeyPath: ${quoted(paths.key)}`,
    `  rootCaPath: ${quoted(paths.anchors)}`,
    '  rootpath: "/greengrass/v2"',
    `  thingName: ${quoted(thingName)}`,
    'services:',
    '  aws.greengrass.Nucleus:',
    '    componentType: "NUCLEUS"',
    '    configuration:',
    `      awsRegion: ${quoted(region)}`,
    `      iotRoleAlias: ${quoted(alias)}`,
    `      iotDataEndpoint: ${quoted(endpoint.host)}`,
    `      iotCredEndpoint: ${quoted(provider)}`,
    ...(endpoint.port === 443 ? ['      mqtt:', '        port: 443'] : []),
  )
}

/**
 * mosquitto.conf(5), "Configuring Bridges". `try_private` and `notifications` are off because AWS IoT
 * Core closes on what they send. The client id is one of its own: two sessions with one client id throw
 * each other out, and the agent's is the thing name.
 */
export function bridgeConfiguration({ credential, options, paths }: Material): string {
  const { endpoint, thingName } = credential
  if (!options.topics?.length)
    throw configurationError(
      'the format mosquitto-bridge needs topics',
      'what the bridge carries, as in mosquitto.conf(5): --topic \'sensors/# out 1\', topics = ["sensors/# out 1"]',
    )
  const host = endpoint.host.includes(':') ? `[${endpoint.host}]` : endpoint.host
  return lines(
    `connection certvend-${thingName}`,
    `address ${options.address ?? `${host}:${endpoint.port}`}`,
    ...options.topics.map((topic) => `topic ${topic}`),
    `remote_clientid ${(options.clientId ?? '{thingName}-bridge').replaceAll('{thingName}', thingName)}`,
    'bridge_protocol_version mqttv311',
    'cleansession true',
    'try_private false',
    'notifications false',
    'bridge_attempt_unsubscribe false',
    `bridge_cafile ${paths.anchors}`,
    `bridge_certfile ${paths.certificate}`,
    `bridge_keyfile ${paths.key}`,
    endpoint.alpn === undefined ? undefined : `bridge_alpn ${endpoint.alpn}`,
  )
}

/** What every list of names and values says. */
function facts({ credential, paths }: Material): readonly (readonly [string, string])[] {
  const { endpoint } = credential
  return [
    ['thing.name', credential.thingName],
    ['device.serial', credential.deviceSerial],
    ['certificate.id', credential.certificateId],
    ['certificate.not-after', credential.notAfter.toISOString()],
    ['endpoint.host', endpoint.host],
    ['endpoint.port', String(endpoint.port)],
    ...(endpoint.alpn === undefined ? [] : [['endpoint.alpn', endpoint.alpn] as const]),
    ['private-key.file', paths.key],
    ['certificate.file', paths.certificate],
    ['trust-anchors.file', paths.anchors],
  ]
}

/** java.util.Properties: `:` and `=` are escaped in values as in names, backslashes doubled. */
export const propertiesFile = (material: Material): string =>
  lines(
    ...facts(material).map(
      ([name, value]) => `certvend.${name}=${value.replace(/[\\:=#!]/g, '\\$&')}`,
    ),
  )

/** For systemd's EnvironmentFile= and for `.` in a shell. */
export const environmentFile = (material: Material): string =>
  lines(
    ...facts(material).map(
      ([name, value]) => `CERTVEND_${name.replace(/[.-]/g, '_').toUpperCase()}='${value}'`,
    ),
  )

export function manifest({ credential, paths }: Material): string {
  const { thingName, deviceSerial, certificateId, keyOrigin, endpoint } = credential
  const { host, port, alpn } = endpoint
  const content = {
    version: 1,
    thingName,
    deviceSerial,
    certificateId,
    keyOrigin,
    notBefore: credential.notBefore.toISOString(),
    notAfter: credential.notAfter.toISOString(),
    endpoint: { host, port, ...(alpn === undefined ? {} : { alpn }) },
    files: { privateKey: paths.key, certificate: paths.certificate, trustAnchors: paths.anchors },
  }
  return `${JSON.stringify(content, undefined, 2)}\n`
}
