/**
 * Registers our CA with AWS IoT, or brings what is registered to what is wanted. Repeatable.
 *
 * In mode DEFAULT AWS wants proof that we hold the CA's key: a verification certificate that it signed,
 * whose common name is a code of the account's. In mode SNI_ONLY there is no proof, the same CA may be
 * registered in several accounts, and devices must name their host (SNI), as ours always do.
 *
 * @see https://docs.aws.amazon.com/iot/latest/developerguide/register-CA-cert.html
 */
import {
  certificatePem,
  prepareSigner,
  publicKeyInfoOf,
  type SigningAuthority,
  signCertificate,
} from '../certificate.ts'
import { type Clock, day, later } from '../clock.ts'
import { makeKey } from '../pki.ts'
import * as x509 from '../x509.ts'
import { unless } from './iot-books.ts'
import type { Iot } from './iot-client.ts'
import type { Waiting } from './issuer.ts'
import { certificateId } from './local.ts'

export type CaMode = 'DEFAULT' | 'SNI_ONLY'

export interface RegisteredCa {
  readonly caCertificateId: string
  readonly caCertificateArn: string
  readonly mode: CaMode
  readonly autoRegistration: boolean
  readonly outcome: 'registered' | 'changed' | 'unchanged'
}

export interface RegisterCaOptions extends Waiting {
  readonly mode: CaMode
  /** Just-in-time registration: unknown certificates of this CA register themselves, pending. */
  readonly autoRegistration: boolean
  readonly clock: Clock
}

/** @throws Error if the CA is registered in the other mode, which AWS cannot change */
export async function registerCa(
  iot: Iot,
  ca: SigningAuthority,
  options: RegisterCaOptions,
): Promise<RegisteredCa> {
  const { mode, autoRegistration } = options
  const caCertificateId = certificateId(ca.certificate)
  const describe = async () => {
    const asked = iot.call('DescribeCACertificate', { certificateId: caCertificateId }, options)
    return (await asked.catch(unless('ResourceNotFoundException')))?.certificateDescription
  }
  let there = await describe()
  const isNew = there === undefined
  if (!there) {
    await iot
      .call(
        'RegisterCACertificate',
        {
          caCertificate: ca.certificate,
          ...(mode === 'DEFAULT' && { verificationCertificate: await verify(iot, ca, options) }),
          certificateMode: mode,
          setAsActive: true,
          allowAutoRegistration: autoRegistration,
        },
        options,
      )
      .catch(unless('ResourceAlreadyExistsException'))
    there = await describe()
  }
  if (!there?.certificateArn) throw new Error('AWS IoT does not show the CA that it registered')
  if ((there.certificateMode ?? 'DEFAULT') !== mode)
    throw new Error(`the CA is registered in mode ${there.certificateMode ?? 'DEFAULT'}`)
  const wanted = autoRegistration ? 'ENABLE' : 'DISABLE'
  const agrees = there.status === 'ACTIVE' && there.autoRegistrationStatus === wanted
  if (!agrees)
    await iot.call(
      'UpdateCACertificate',
      {
        certificateId: caCertificateId,
        newStatus: 'ACTIVE',
        newAutoRegistrationStatus: wanted,
      },
      options,
    )
  return {
    caCertificateId,
    caCertificateArn: there.certificateArn,
    mode,
    autoRegistration,
    outcome: isNew ? 'registered' : agrees ? 'unchanged' : 'changed',
  }
}

/** A certificate over a key that is thrown away, in the name of the account's registration code. */
async function verify(iot: Iot, ca: SigningAuthority, options: RegisterCaOptions): Promise<string> {
  const { registrationCode } = await iot.call('GetRegistrationCode', {}, options)
  if (!registrationCode) throw new Error('AWS IoT gave no registration code')
  const now = options.clock.now()
  const certificate = await signCertificate(prepareSigner(ca), {
    subject: registrationCode,
    publicKeyInfo: publicKeyInfoOf(makeKey()),
    notBefore: later(now, -day),
    notAfter: later(now, day),
    extensions: [new x509.BasicConstraintsExtension(false, undefined, true)],
  })
  return certificatePem(certificate)
}
