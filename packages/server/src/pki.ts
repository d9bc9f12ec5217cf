/**
 * Makes CAs and server certificates (RFC 5280): the embedded server's own chain, and the lab's.
 *
 * ECDSA P-256 with SHA-256 throughout, unless a test asks for another key. No I/O and no clock.
 */
import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { isIP } from 'node:net'
import {
  certificatePem,
  type KeyElsewhere,
  prepareSelfSigner,
  prepareSigner,
  publicKeyInfoOf,
  type SigningAuthority,
  signCertificate,
  type Validity,
} from './certificate.ts'
import * as x509 from './x509.ts'

/** A CA that can sign: its certificate (PEM) and its private key. */
export interface Authority {
  readonly certificate: string
  readonly privateKey: KeyObject
}

/** A server's certificate chain (PEM, end entity first, without the root) and its private key. */
export interface ServerIdentity {
  readonly certificateChain: string
  readonly privateKey: KeyObject
}

export type KeyKind = 'P-256' | 'RSA-1024' | 'RSA-2048'

/** @param kind default P-256 */
export function makeKey(kind: KeyKind = 'P-256'): KeyObject {
  const pair =
    kind === 'P-256'
      ? generateKeyPairSync('ec', { namedCurve: 'P-256' })
      : generateKeyPairSync('rsa', { modulusLength: kind === 'RSA-1024' ? 1024 : 2048 })
  // Through PKCS#8, so that a key just made and a key read from disk are the same kind of object.
  return createPrivateKey(pair.privateKey.export({ type: 'pkcs8', format: 'pem' }))
}

export const privateKeyPem = (key: KeyObject): string =>
  key.export({ type: 'pkcs8', format: 'pem' }).toString()

export interface CaRequest extends Validity {
  readonly commonName: string
  /** Who signs; absent for a self-signed root. */
  readonly issuer?: SigningAuthority
  /** The CA's key; a new P-256 key by default. The same key and name make a cross-signed copy. */
  readonly privateKey?: KeyObject
  /** How many CAs may stand below this one; unlimited by default. */
  readonly pathLength?: number
  /** Extended key usages (OIDs) to restrict the CA to; none by default. */
  readonly extendedKeyUsage?: readonly string[]
}

/** Makes a CA (RFC 5280 section 4.2.1.9: basicConstraints critical, CA:TRUE). */
export async function makeCa(request: CaRequest): Promise<Authority> {
  const privateKey = request.privateKey ?? makeKey()
  return { certificate: await makeCaCertificate(request, privateKey), privateKey }
}

/** The same for a key that may be elsewhere. @returns PEM */
export async function makeCaCertificate(
  request: Omit<CaRequest, 'privateKey'>,
  privateKey: KeyObject | KeyElsewhere,
): Promise<string> {
  const { issuer, commonName, pathLength, extendedKeyUsage, notBefore, notAfter } = request
  const signer = issuer ? prepareSigner(issuer) : prepareSelfSigner(commonName, privateKey)
  const certificate = await signCertificate(signer, {
    subject: commonName,
    publicKeyInfo: publicKeyInfoOf(privateKey),
    notBefore,
    notAfter,
    extensions: [
      new x509.BasicConstraintsExtension(true, pathLength, true),
      new x509.KeyUsagesExtension(
        x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign,
        true,
      ),
      ...(extendedKeyUsage ? [new x509.ExtendedKeyUsageExtension([...extendedKeyUsage])] : []),
    ],
  })
  return certificatePem(certificate)
}

/** Extended key usages that a TLS peer looks for (RFC 5280 section 4.2.1.12). */
export const keyPurpose = {
  serverAuth: x509.ExtendedKeyUsage.serverAuth as string,
  clientAuth: x509.ExtendedKeyUsage.clientAuth as string,
} as const

export interface ServerRequest extends Validity {
  readonly issuer: Authority
  /** Host names and IP addresses for subjectAltName; none leaves the extension out. */
  readonly names: readonly string[]
  /** CN; the first name by default. */
  readonly commonName?: string
  readonly keyKind?: KeyKind
  /** `serverAuth` by default. */
  readonly extendedKeyUsage?: readonly string[]
  /** CA certificates (PEM) to send after the end entity; the issuer's own by default. */
  readonly sends?: readonly string[]
}

/** Makes a TLS server's certificate (RFC 9525: the names are in subjectAltName). */
export async function makeServer(request: ServerRequest): Promise<ServerIdentity> {
  const privateKey = makeKey(request.keyKind)
  const names = request.names.map((name) => ({
    type: isIP(name) ? ('ip' as const) : ('dns' as const),
    value: name,
  }))
  const certificate = await signCertificate(prepareSigner(request.issuer), {
    subject: request.commonName ?? request.names[0] ?? 'server',
    publicKeyInfo: publicKeyInfoOf(privateKey),
    notBefore: request.notBefore,
    notAfter: request.notAfter,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([
        ...(request.extendedKeyUsage ?? [keyPurpose.serverAuth]),
      ]),
      ...(names.length > 0 ? [new x509.SubjectAlternativeNameExtension(names)] : []),
    ],
  })
  const sends = request.sends ?? [request.issuer.certificate]
  return { certificateChain: [certificatePem(certificate), ...sends].join(''), privateKey }
}
