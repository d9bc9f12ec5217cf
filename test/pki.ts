/**
 * A throwaway PKI: authorities and end entities, as PEM. TLS judges them by the real clock, so they
 * are valid from 2020 to 2049 unless a test says otherwise.
 */
import 'reflect-metadata'
import { createHash, createPrivateKey, webcrypto } from 'node:crypto'
import * as x509 from '@peculiar/x509'

export type KeyType = 'EC' | 'RSA' | 'RSA-1024'

export interface Certified {
  readonly name: string
  readonly keys: webcrypto.CryptoKeyPair
  /** PEM. */
  readonly certificate: string
  /** PKCS#8 PEM. */
  readonly privateKey: string
}

const longAgo: Date = new Date('2020-01-01T00:00:00Z')
export const yesteryear: Date = new Date('2021-01-01T00:00:00Z')
export const farAhead: Date = new Date('2049-01-01T00:00:00Z')

const { subtle } = webcrypto
x509.cryptoProvider.set(webcrypto as never)

export async function makeKeys(type: KeyType = 'EC'): Promise<webcrypto.CryptoKeyPair> {
  const algorithm =
    type === 'EC'
      ? { name: 'ECDSA', namedCurve: 'P-256' }
      : {
          name: 'RSASSA-PKCS1-v1_5',
          hash: 'SHA-256',
          modulusLength: type === 'RSA' ? 2048 : 1024,
          publicExponent: new Uint8Array([1, 0, 1]),
        }
  return (await subtle.generateKey(algorithm, true, ['sign', 'verify'])) as webcrypto.CryptoKeyPair
}

export interface CertificateOptions {
  /** Default: itself. */
  readonly issuer?: Certified
  /** Default: fresh ones of the issuer's kind. */
  readonly keys?: webcrypto.CryptoKeyPair
  /** SubjectPublicKeyInfo to certify instead of `keys`. */
  readonly publicKey?: Uint8Array
  readonly ca?: boolean
  readonly pathLength?: number
  readonly dns?: readonly string[]
  readonly ip?: readonly string[]
  readonly extendedKeyUsage?: readonly ('serverAuth' | 'clientAuth')[]
  readonly notBefore?: Date
  readonly notAfter?: Date
  /** Name constraints (RFC 5280 section 4.2.1.10): the only domain, up to 100 characters, below a CA. */
  readonly permittedDomain?: string
  /** The same, the other way round: every domain but this one. */
  readonly excludedDomain?: string
}

const named = (name: string): string => (name === '' ? '' : `CN=${name}`)

/** Issues one certificate with subject `CN=<name>`, or without a subject if the name is empty. */
export async function certify(name: string, options: CertificateOptions = {}): Promise<Certified> {
  const { issuer, ca = false, dns = [], ip = [], extendedKeyUsage = [] } = options
  const keys = options.keys ?? (await makeKeys())
  const extensions: x509.Extension[] = [
    new x509.BasicConstraintsExtension(ca, options.pathLength, true),
  ]
  if (ca)
    extensions.push(
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
    )
  if (extendedKeyUsage.length > 0)
    extensions.push(
      new x509.ExtendedKeyUsageExtension(
        extendedKeyUsage.map((usage) => x509.ExtendedKeyUsage[usage]),
      ),
    )
  if (dns.length + ip.length > 0)
    extensions.push(
      new x509.SubjectAlternativeNameExtension([
        ...dns.map((value) => ({ type: 'dns' as const, value })),
        ...ip.map((value) => ({ type: 'ip' as const, value })),
      ]),
    )
  const { permittedDomain, excludedDomain } = options
  if (permittedDomain) extensions.push(nameConstraints(0xa0, permittedDomain))
  if (excludedDomain) extensions.push(nameConstraints(0xa1, excludedDomain))
  const certificate = await x509.X509CertificateGenerator.create({
    subject: named(name),
    issuer: named(issuer?.name ?? name),
    publicKey: (options.publicKey ?? keys.publicKey) as never,
    signingKey: (issuer?.keys ?? keys).privateKey as never,
    notBefore: options.notBefore ?? longAgo,
    notAfter: options.notAfter ?? farAhead,
    extensions,
  })
  return {
    name,
    keys,
    certificate: `${certificate.toString('pem')}\n`,
    privateKey: pem(
      'PRIVATE KEY',
      new Uint8Array(await subtle.exportKey('pkcs8', keys.privateKey)),
    ),
  }
}

/** An authority as an operator keeps it: private key (PKCS#8, EC P-256) and certificate in one PEM. */
export async function importAuthority(text: string): Promise<Certified> {
  const certificate = new x509.X509Certificate(text.slice(text.indexOf('-----BEGIN CERTIFICATE')))
  const privateKey = text.slice(0, text.indexOf('-----BEGIN CERTIFICATE'))
  const algorithm = { name: 'ECDSA', namedCurve: 'P-256' }
  const der = createPrivateKey(privateKey).export({ type: 'pkcs8', format: 'der' })
  return {
    name: certificate.subjectName.getField('CN')[0] ?? '',
    keys: {
      privateKey: await subtle.importKey('pkcs8', der, algorithm, true, ['sign']),
      publicKey: (await certificate.publicKey.export(algorithm, ['verify'])) as never,
    },
    certificate: certificate.toString('pem'),
    privateKey,
  }
}

/** A revocation list of `issuer`, PEM. */
export async function revoke(issuer: Certified, revoked: readonly Certified[]): Promise<string> {
  const crl = await x509.X509CrlGenerator.create({
    issuer: `CN=${issuer.name}`,
    signingKey: issuer.keys.privateKey as never,
    signingAlgorithm: { name: 'ECDSA', hash: 'SHA-256' },
    thisUpdate: longAgo,
    nextUpdate: farAhead,
    entries: revoked.map(({ certificate }) => ({
      serialNumber: new x509.X509Certificate(certificate).serialNumber,
      revocationDate: longAgo,
    })),
  })
  return pem('X509 CRL', new Uint8Array(crl.rawData))
}

/** permittedSubtrees (0xa0) or excludedSubtrees (0xa1) of one dNSName. */
function nameConstraints(subtrees: number, name: string): x509.Extension {
  const domain = Buffer.from(name)
  const { length } = domain
  // GeneralSubtree { dNSName [2] }
  const head = [0x30, length + 6, subtrees, length + 4, 0x30, length + 2, 0x82, length]
  return new x509.Extension('2.5.29.30', true, Buffer.concat([Buffer.from(head), domain]))
}

/** PEM armour around DER. */
export function pem(label: string, der: Uint8Array): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
}

/** The DER inside a PEM text. */
export const der = (text: string): Buffer =>
  Buffer.from(text.replace(/-----[^-]+-----/g, ''), 'base64')

/** SHA-256 of a certificate's DER, lower-case hex. */
export const certificateIdOf = (certificate: string): string =>
  createHash('sha256').update(der(certificate)).digest('hex')

/** What a PEM certification request says, once its own signature has been verified. */
export async function subjectAndKeyOf(
  csr: string,
): Promise<{ subject: string; commonName: string; publicKey: Uint8Array }> {
  const request = new x509.Pkcs10CertificateRequest(csr)
  if (!(await request.verify())) throw new Error('the certification request does not verify itself')
  return {
    subject: request.subject,
    commonName: request.subjectName.getField('CN')[0] ?? '',
    publicKey: new Uint8Array(request.publicKey.rawData),
  }
}

/** SubjectPublicKeyInfo of a PEM certification request. */
export const publicKeyOf = async (csr: string): Promise<Uint8Array> =>
  (await subjectAndKeyOf(csr)).publicKey

/** A certificate for the key of a PEM certification request. */
export async function certifyRequest(
  csr: string,
  name: string,
  options: CertificateOptions,
): Promise<string> {
  const { certificate } = await certify(name, { ...options, publicKey: await publicKeyOf(csr) })
  return certificate
}
