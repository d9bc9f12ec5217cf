/**
 * What a device shows to Fleet Provisioning: a claim certificate that a whole product shares, or a
 * trusted user's temporary one. It opens the first session and nothing else.
 */
import * as v from 'valibot'
import { carries, notAfter, readCertificates } from './certificate.ts'
import { readKey } from './key.ts'
import { isDeviceSerial } from './wire.ts'

/** A claim certificate and its key, shown once to get a certificate of the device’s own. */
export interface FleetClaim {
  readonly deviceSerial: string
  /** PEM, end entity first. */
  readonly certificateChain: string
  /** PEM. Not enumerable: inspection, JSON and spreading leave it out. */
  readonly privateKey: string
  /** When it ends; a trusted user's lasts 5 minutes. */
  readonly expiresAt: Date
}

/**
 * Makes a claim of the PEM texts that a factory put on the device.
 *
 * @throws TypeError when one cannot be read; the message never holds the key.
 */
export function createFleetClaim({
  deviceSerial,
  certificateChain,
  privateKey,
  expiresAt,
}: {
  deviceSerial: string
  certificateChain: string
  privateKey: string
  /** Default: the end of the certificate. */
  expiresAt?: Date
}): FleetClaim {
  if (!isDeviceSerial(deviceSerial))
    throw new TypeError(
      'deviceSerial must be 1 to 64 letters, digits, ":", "_", "-" or ".", starting with a letter or digit',
    )
  const endEntity = readCertificates(certificateChain)[0]!
  if (!carries(endEntity, readKey(privateKey).publicKey))
    throw new TypeError("the private key is not the claim certificate's")
  const claim: Omit<FleetClaim, 'privateKey'> = {
    deviceSerial,
    certificateChain,
    expiresAt: expiresAt ?? notAfter(endEntity),
  }
  return Object.freeze(
    Object.defineProperty(claim as FleetClaim, 'privateKey', {
      value: privateKey,
      enumerable: false,
    }),
  )
}

const ProvisioningClaim = v.object({
  certificatePem: v.string(),
  keyPair: v.object({ PrivateKey: v.string() }),
  /** Seconds since 1970 on the wire, an ISO timestamp from the AWS CLI. */
  expiration: v.union([v.number(), v.string()]),
})

/**
 * Reads a trusted user's claim: the JSON that `CreateProvisioningClaim` answered to the installer's
 * app (`aws iot create-provisioning-claim --template-name …`).
 *
 * @throws TypeError when it is none; the message never holds the key.
 * @see https://docs.aws.amazon.com/iot/latest/apireference/API_CreateProvisioningClaim.html
 */
export function readProvisioningClaim(json: string, deviceSerial: string): FleetClaim {
  let answer: unknown
  try {
    answer = JSON.parse(json)
  } catch {
    throw new TypeError('a provisioning claim is JSON')
  }
  const parsed = v.safeParse(ProvisioningClaim, answer)
  if (!parsed.success)
    throw new TypeError('a provisioning claim holds certificatePem, keyPair and expiration')
  const { certificatePem, keyPair, expiration } = parsed.output
  const expiresAt = new Date(typeof expiration === 'number' ? expiration * 1000 : expiration)
  if (Number.isNaN(expiresAt.getTime()))
    throw new TypeError('the expiration of the provisioning claim is no time')
  return createFleetClaim({
    deviceSerial,
    certificateChain: certificatePem,
    privateKey: keyPair.PrivateKey,
    expiresAt,
  })
}
