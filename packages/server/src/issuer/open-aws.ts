/** AWS IoT as an issuer, whole: client, rate gate, issuer and endpoint, from a few words of configuration. */
import type { Endpoint } from '@certvend/client/wire'
import type { Clock } from '../clock.ts'
import { createRateGate, type RateGate, type Rates } from '../rate-gate.ts'
import { createAwsIotIssuer } from './aws-iot.ts'
import { createOwnCaIssuer, type Registration } from './aws-iot-own-ca.ts'
import { openCa } from './ca-key.ts'
import type { BooksSettings } from './iot-books.ts'
import { type Iot, openIot } from './iot-client.ts'
import { createIotEndpoint, type EndpointSettings } from './iot-endpoint.ts'
import { iotRates, shareOf } from './iot-quotas.ts'
import type { Issuer } from './issuer.ts'

/** What can issue for AWS IoT. */
const awsIssuers = ['aws-iot', 'aws-iot-own-ca', 'aws-iot-jitr'] as const
export type AwsIssuerName = (typeof awsIssuers)[number]

export interface AwsSettings extends BooksSettings, EndpointSettings {
  readonly issuer: AwsIssuerName
  readonly clock: Clock
  /** Default: the SDK's own, such as `AWS_REGION`. */
  readonly region?: string
  /** Calls per second that the account allows; AWS's defaults by default. */
  readonly rates?: Rates
  /** The part of them that this process may use; all of it by default. */
  readonly quotaShare?: number
  /** For an own CA: where its key is; see {@link openCa}. */
  readonly caKey?: string
  /** For an own CA whose key is in KMS: its certificate, PEM. */
  readonly caCertificate?: () => Promise<string>
  /** For `aws-iot-own-ca`: whether the CA is registered with the account; it is by default. */
  readonly registration?: Exclude<Registration, 'just-in-time'>
  /** How long certificates of an own CA last, in milliseconds; 365 days by default. */
  readonly validityMs?: number
}

export interface AwsIssuer {
  readonly issuer: Issuer
  readonly iot: Iot
  readonly gate: RateGate
  /** Where devices connect; AWS is asked once. */
  endpoint(): Promise<Endpoint>
  close(): void
}

/**
 * Opens the issuer. Only an own CA in AWS is fetched now; AWS IoT is called when something is to be done.
 *
 * @throws RangeError if a rate or the share is none; what {@link openCa} throws
 */
export async function openAwsIssuer(settings: AwsSettings): Promise<AwsIssuer> {
  const { issuer: name, clock, region, caKey, caCertificate } = settings
  const gate = createRateGate({
    rates: shareOf({ ...iotRates, ...settings.rates }, settings.quotaShare ?? 1),
  })
  const iot = openIot({ clock, gate, ...(region !== undefined && { region }) })
  const issuer =
    name === 'aws-iot'
      ? createAwsIotIssuer({ ...settings, iot, gate })
      : createOwnCaIssuer({
          ...settings,
          iot,
          gate,
          ca: await openCa(caKey ?? '', caCertificate),
          registration:
            name === 'aws-iot-jitr' ? 'just-in-time' : (settings.registration ?? 'registered'),
        })
  return {
    issuer,
    iot,
    gate,
    endpoint: createIotEndpoint(iot, settings),
    close: () => iot.close(),
  }
}
