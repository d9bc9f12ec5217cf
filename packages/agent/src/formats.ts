/**
 * The formats in which other programs take a credential: pure, from a credential to files.
 *
 * A configuration names the files of its own set by their full path, so that whoever reads it reads
 * one identity, whatever happens meanwhile.
 */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import type { Credential } from '@certvend/client'
import { configurationError } from './failure.ts'
import {
  bridgeConfiguration,
  deviceClientConfiguration,
  environmentFile,
  greengrassConfiguration,
  manifest,
  propertiesFile,
} from './format-texts.ts'

/** One file of an export. */
export interface ExportedFile {
  readonly name: string
  readonly data: string | Uint8Array
  /** Holds the private key. */
  readonly secret: boolean
}

/** Names of the files that are PEM, in the place of the default ones. */
export interface FileNames {
  /** Default `private-key.pem`. */
  readonly key: string
  /** Default `certificate.pem`: end entity first. */
  readonly certificate: string
  /** Default `trust-anchors.pem`: the CAs that vouch for the MQTT server. */
  readonly anchors: string
}

/** What a format may be told; each is used by some formats and refused by none. */
export interface FormatOptions {
  readonly names?: Partial<FileNames>
  /** `pkcs8` (default), or `traditional`: PKCS#1 for RSA, SEC 1 for EC. */
  readonly keyFormat?: 'pkcs8' | 'traditional'
  /** The text that protects a PKCS#12 file; by file, never by option. */
  readonly passwordFile?: string
  readonly awsRegion?: string
  readonly roleAlias?: string
  readonly credentialsEndpoint?: string
  /** mosquitto.conf(5), `topic`: what the bridge carries, such as `sensors/# out 1`. */
  readonly topics?: readonly string[]
  /** HOST:PORT of another broker than the credential's. */
  readonly address?: string
  /** The bridge's; `{thingName}` stands for the thing name. Default `{thingName}-bridge`. */
  readonly clientId?: string
}

/** All that a text of a format is made of. */
export interface Material {
  readonly credential: Credential
  readonly options: FormatOptions
  /** Full paths of the PEM files of this set. */
  readonly paths: FileNames
}

const defaultNames: FileNames = {
  key: 'private-key.pem',
  certificate: 'certificate.pem',
  anchors: 'trust-anchors.pem',
}

const own = (name: string, data: string | Uint8Array, secret = false): ExportedFile => ({
  name,
  data,
  secret,
})

const text = (name: string, write: (material: Material) => string) => (material: Material) => [
  ...pemFiles(material),
  own(name, write(material)),
]

interface Format {
  /** For --help and the documentation. */
  readonly about: string
  readonly write: (material: Material) => readonly ExportedFile[]
}

/** Every format, and what it is for. `pkcs12` is made of the files of `pem` by pkcs12.ts. */
export const formats = {
  pem: { about: 'key, certificate and trust anchors, a file each', write: pemFiles },
  'pem-bundle': {
    about: 'credential.pem: key and certificates in one file; and the trust anchors',
    write: ({ credential, options }) => [
      own('credential.pem', keyPem(credential, options) + credential.certificateChain, true),
      own(nameOf(options, 'anchors'), anchorsPem(credential)),
    ],
  },
  der: {
    about: 'private-key.der, certificate.der, trust-anchor-1.der …, for small devices',
    write: ({ credential, options }) => [
      own('private-key.der', keyDer(credential, options), true),
      ...numbered('certificate', [credential.certificateChain]),
      ...numbered('trust-anchor', credential.endpoint.trustAnchors, true),
    ],
  },
  pkcs12: {
    about: 'credential.p12, made by openssl; needs a password file',
    write: ({ credential, options }) => [
      own('pem', keyPem(credential, options) + credential.certificateChain, true),
    ],
  },
  'aws-iot-device-client': {
    about: "configuration of AWS's IoT Device Client, and the PEM files",
    write: text('aws-iot-device-client.conf', deviceClientConfiguration),
  },
  greengrass: {
    about: 'config.yaml for AWS IoT Greengrass v2 (its nucleus), and the PEM files',
    write: text('config.yaml', greengrassConfiguration),
  },
  'mosquitto-bridge': {
    about: 'bridge.conf for mosquitto, to include; and the PEM files',
    write: text('bridge.conf', bridgeConfiguration),
  },
  properties: {
    about: 'certvend.properties for Java programs, and the PEM files',
    write: text('certvend.properties', propertiesFile),
  },
  env: {
    about: 'certvend.env for EnvironmentFile= and shells, and the PEM files',
    write: text('certvend.env', environmentFile),
  },
  json: {
    about: 'certvend.json: names, paths and dates for programs, and the PEM files',
    write: text('certvend.json', manifest),
  },
} as const satisfies Record<string, Format>

export type FormatName = keyof typeof formats
export const formatNames = Object.keys(formats) as readonly FormatName[]

/**
 * The files of `format` for a set that will lie in `directory` (absolute).
 *
 * @throws a configuration error when the format needs an option that is missing, or two files would
 *   have one name
 */
export function filesOf(
  format: FormatName,
  credential: Credential,
  options: FormatOptions,
  directory: string,
): readonly ExportedFile[] {
  const path = (of: keyof FileNames): string => `${directory}/${nameOf(options, of)}`
  const paths = { key: path('key'), certificate: path('certificate'), anchors: path('anchors') }
  const files = formats[format].write({ credential, options, paths })
  const twice = files.find(({ name }, at) => files.findIndex((one) => one.name === name) !== at)
  if (twice) throw configurationError(`two files would be called ${twice.name}`)
  return files
}

const nameOf = ({ names = {} }: FormatOptions, of: keyof FileNames): string =>
  names[of] ?? defaultNames[of]

function pemFiles({ credential, options }: Material): readonly ExportedFile[] {
  return [
    own(nameOf(options, 'key'), keyPem(credential, options), true),
    own(nameOf(options, 'certificate'), credential.certificateChain),
    own(nameOf(options, 'anchors'), anchorsPem(credential)),
  ]
}

const anchorsPem = ({ endpoint }: Credential): string => endpoint.trustAnchors.join('')

/** The name that `traditional` has for this key, where it has one: an Ed25519 key is PKCS#8 only. */
function structure(credential: Credential, { keyFormat }: FormatOptions) {
  const kind = credential.privateKey.publicKey.asymmetricKeyType
  if (keyFormat !== 'traditional' || kind === 'ed25519') return 'pkcs8'
  return kind === 'rsa' ? 'pkcs1' : 'sec1'
}

function keyPem(credential: Credential, options: FormatOptions): string {
  const key = createPrivateKey(credential.privateKey.toPem())
  const type = structure(credential, options) as 'pkcs8'
  return key.export({ type, format: 'pem' }).toString()
}

function keyDer(credential: Credential, options: FormatOptions): Buffer {
  const key = createPrivateKey(credential.privateKey.toPem())
  return key.export({ type: structure(credential, options) as 'pkcs8', format: 'der' })
}

/** One DER file for each certificate; the first without a number unless `always`. */
function numbered(name: string, pems: readonly string[], always = false): ExportedFile[] {
  const blocks = pems.join('').match(/-----BEGIN[\s\S]*?-----END CERTIFICATE-----/g) ?? []
  return blocks.map((pem, at) => {
    const number = at > 0 || always ? `-${at + 1}` : ''
    return own(`${name}${number}.der`, new Uint8Array(new X509Certificate(pem).raw))
  })
}
