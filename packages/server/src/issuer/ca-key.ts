/**
 * The device CA's key, wherever it is kept:
 *
 * - a file (0600) on one server: key and certificate in one PEM, as {@link openDeviceCa} makes it;
 * - a secret in AWS Secrets Manager, by ARN: the same PEM;
 * - a key in AWS KMS, by ARN: it never leaves KMS, and signs there; the certificate is beside it, from a
 *   file or from AWS IoT.
 *
 * Never an environment variable, and never part of a bundle. AWS's libraries are loaded only for an ARN.
 */
import { createPublicKey, X509Certificate } from 'node:crypto'
import { stat } from 'node:fs/promises'
import type { KeyElsewhere, SigningAuthority } from '../certificate.ts'
import { second } from '../clock.ts'
import { failure } from '../failure.ts'
import { readIfPresent } from '../safe-file.ts'
import { parseAuthority } from './local.ts'

/** Whether the reference is a KMS key's ARN. */
export const isKmsArn = (reference: string): boolean => /^arn:[^:]+:kms:/.test(reference)
/** Whether the reference is a secret's ARN. */
export const isSecretArn = (reference: string): boolean =>
  /^arn:[^:]+:secretsmanager:/.test(reference)

const timeout = () => ({ abortSignal: AbortSignal.timeout(10 * second) })

/**
 * Opens the CA.
 *
 * @param reference a path, or the ARN of a secret or a KMS key
 * @param certificate the CA's certificate, PEM: for a KMS key, which has none
 * @throws Failure if there is no such CA, or key and certificate do not belong together
 */
export async function openCa(
  reference: string,
  certificate?: () => Promise<string>,
): Promise<SigningAuthority> {
  if (isKmsArn(reference)) {
    if (!certificate)
      throw failure(2, 'a KMS key comes without a certificate', 'name it: --ca-certificate FILE')
    const privateKey = await openKmsKey(reference)
    return paired({ certificate: await certificate(), privateKey })
  }
  if (isSecretArn(reference)) return parse(await readSecret(reference), 'the secret')
  if (reference.startsWith('arn:'))
    throw failure(2, 'the ARN is neither of Secrets Manager nor of KMS', 'see --ca-key in --help')
  const text = await readIfPresent(reference)
  if (text === undefined)
    throw failure(2, `there is no ${reference}`, 'make a CA: certvend-server ca create')
  if (process.platform !== 'win32' && ((await stat(reference)).mode & 0o077) !== 0)
    throw failure(3, `${reference} can be read by others`, `chmod 600 ${reference}`)
  return parse(text, reference)
}

function parse(text: string, what: string): SigningAuthority {
  try {
    return parseAuthority(text)
  } catch {
    throw failure(3, `${what} does not hold a private key and its certificate, PEM`)
  }
}

/** KMS names the key by its ARN only; that it is the one in the certificate is seen here. */
function paired(ca: { certificate: string; privateKey: KeyElsewhere }): SigningAuthority {
  const held = new X509Certificate(ca.certificate).publicKey.export({ type: 'spki', format: 'der' })
  if (!held.equals(ca.privateKey.publicKeyInfo))
    throw failure(3, 'the KMS key does not belong to the CA certificate', 'name the other one')
  return ca
}

async function openSecrets(arn: string) {
  const { GetSecretValueCommand, PutSecretValueCommand, SecretsManagerClient } = await import(
    '@aws-sdk/client-secrets-manager'
  )
  const client = new SecretsManagerClient({ region: regionOf(arn) })
  return {
    /** Its text; empty if it has none yet. */
    async read(): Promise<string> {
      try {
        const command = new GetSecretValueCommand({ SecretId: arn })
        return (await client.send(command, timeout())).SecretString ?? ''
      } catch (error) {
        if ((error as Error).name === 'ResourceNotFoundException') return ''
        throw error
      }
    },
    async write(text: string): Promise<void> {
      const command = new PutSecretValueCommand({ SecretId: arn, SecretString: text })
      await client.send(command, timeout())
    },
    close: () => client.destroy(),
  }
}

async function readSecret(arn: string): Promise<string> {
  const secret = await openSecrets(arn)
  return secret.read().finally(secret.close)
}

/** Puts a CA into a secret that has no value yet. @throws Failure if it has one */
export async function writeNewSecret(arn: string, text: string): Promise<void> {
  const secret = await openSecrets(arn)
  try {
    if ((await secret.read()) !== '')
      throw failure(
        3,
        'the secret has a value already',
        'a CA is not replaced; name an empty secret',
      )
    await secret.write(text)
  } finally {
    secret.close()
  }
}

/** A key that signs in KMS: ECC_NIST_P256 or RSA of 2048 bits and more, SIGN_VERIFY. */
export async function openKmsKey(arn: string): Promise<KeyElsewhere> {
  const { GetPublicKeyCommand, KMSClient, SignCommand } = await import('@aws-sdk/client-kms')
  const client = new KMSClient({ region: regionOf(arn) })
  const { PublicKey } = await client.send(new GetPublicKeyCommand({ KeyId: arn }), timeout())
  const publicKeyInfo = Buffer.from(PublicKey ?? [])
  const { asymmetricKeyType, asymmetricKeyDetails } = createPublicKey({
    key: publicKeyInfo,
    format: 'der',
    type: 'spki',
  })
  const isP256 = asymmetricKeyDetails?.namedCurve === 'prime256v1'
  if (asymmetricKeyType !== 'rsa' && !isP256)
    throw failure(2, 'the KMS key is neither P-256 nor RSA', 'make one: ECC_NIST_P256, SIGN_VERIFY')
  return {
    asymmetricKeyType: isP256 ? 'ec' : 'rsa',
    publicKeyInfo,
    async sign(data) {
      const { Signature } = await client.send(
        new SignCommand({
          KeyId: arn,
          Message: data,
          MessageType: 'RAW',
          SigningAlgorithm: isP256 ? 'ECDSA_SHA_256' : 'RSASSA_PKCS1_V1_5_SHA_256',
        }),
        timeout(),
      )
      return Buffer.from(Signature ?? [])
    },
  }
}

/** An ARN says where it is; the environment may mean another region. */
const regionOf = (arn: string): string => arn.split(':')[3] ?? ''
