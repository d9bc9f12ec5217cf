/**
 * AWS IoT makes the certificates: `CreateCertificateFromCsr`, INACTIVE until the registry has recorded
 * the certificate and everything that belongs to it is in place.
 *
 * AWS makes another certificate each time it is asked. One whose answer was lost, or that lost a race
 * for its reservation, is INACTIVE, belongs to no thing and has no policy; the sweep removes it. Their
 * validity (until the end of 2049) and their issuer are AWS's; nothing can be asked of either.
 */
import { createHash, X509Certificate } from 'node:crypto'
import type { RateGate } from '../rate-gate.ts'
import { type BooksSettings, createIotBooks } from './iot-books.ts'
import type { Iot } from './iot-client.ts'
import type { Issuer } from './issuer.ts'
import { certificateId } from './local.ts'

export interface AwsIotIssuerOptions extends BooksSettings {
  readonly iot: Iot
  /** Shared by everything in this process that calls AWS IoT. Without it nothing waits. */
  readonly gate?: RateGate
}

/** What one device costs. */
const costs = {
  CreateCertificateFromCsr: 1,
  CreateThing: 1,
  AttachPolicy: 1,
  AttachThingPrincipal: 1,
  UpdateCertificate: 1,
}

/** AWS IoT signs: `CreateCertificateFromCsr`. */
export function createAwsIotIssuer(options: AwsIotIssuerOptions): Issuer {
  const { iot, gate } = options
  const books = createIotBooks(iot, options)
  const spends = options.thingGroup === undefined ? costs : { ...costs, AddThingToThingGroup: 1 }
  return {
    ...(gate && { admit: (publicKey, now) => gate.ask(publicKey, spends, now) }),
    async issue(request, device, _reservation, waiting) {
      books.judge(device)
      const input = { certificateSigningRequest: request.pem, setAsActive: false }
      const made = await iot.call('CreateCertificateFromCsr', input, waiting)
      const certificate = new X509Certificate(made.certificatePem ?? '')
      const key = certificate.publicKey.export({ type: 'spki', format: 'der' })
      if (createHash('sha256').update(key).digest('hex') !== request.publicKey)
        throw new Error('AWS IoT answered with a certificate for another key')
      const id = certificateId(certificate.raw)
      if (id !== made.certificateId || !made.certificateArn)
        throw new Error('AWS IoT answered with a certificate under another id')
      books.learn(made.certificateArn)
      return {
        certificateId: id,
        certificateArn: made.certificateArn,
        certificateChain: [certificate.toString()],
        notBefore: new Date(certificate.validFrom),
        notAfter: new Date(certificate.validTo),
      }
    },
    activate: (certificate, device, waiting) => books.enter(certificate, device, waiting),
    withdraw: async (certificate, status, waiting) =>
      void (await books.setStatus(certificate.certificateId, status, waiting)),
    // AWS names no CA for the certificates that it makes.
    caCertificates: async () => [],
  }
}
