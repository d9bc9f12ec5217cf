/**
 * What a deployed function is told by its environment, which `template.yaml` fills. No secret is in
 * it: a CA is named by its ARN and read with the function's own role.
 */
import { X509Certificate } from 'node:crypto'
import type { Endpoint } from '@certvend/client/wire'
import { day } from '../clock.ts'
import { type LegacyRoute, legacyNames, readRoute } from '../legacy/routes.ts'

export const issuers = ['aws-iot', 'aws-iot-own-ca', 'aws-iot-jitr'] as const

export interface Settings {
  readonly registry: {
    readonly table: string
    readonly ledger: string
    readonly shape: 'device-info' | 'iot-atlas'
    readonly keepPlainTokens: boolean
  }
  readonly issuer: (typeof issuers)[number]
  /** ARN of the secret or of the KMS key of the CA; present unless AWS IoT's own CA signs. */
  readonly ca?: string
  /** Under which AWS IoT knows it. */
  readonly caCertificateId?: string
  /** How long certificates of that CA last, in milliseconds. */
  readonly validityMs: number
  /** The AWS IoT policy that every device gets. */
  readonly policyName: string
  /** Absent: this account's own, which AWS IoT tells. */
  readonly mqttHost?: string
  readonly mqttPort: number
  /** Asked for on port 443, where IoT Core listens for several protocols. */
  readonly mqttAlpn?: 'x-amzn-mqtt-ca'
  /** CAs of a custom domain, one PEM each. Absent: Amazon's. */
  readonly mqttAnchors?: Endpoint['trustAnchors']
  /** Old vending machines that are answered too. */
  readonly dialects: readonly LegacyRoute[]
  /** Whether devices of awslabs 2020 are given their shadows. */
  readonly shadow: boolean
}

type Environment = Readonly<Record<string, string | undefined>>

/** @throws Error that names every variable that is missing or has no such value */
export function readSettings(environment: Environment): Settings {
  const wrong: string[] = []
  const said = (name: string): string | undefined => environment[name]?.trim() || undefined
  const needed = (name: string): string => {
    const value = said(name)
    if (value === undefined) wrong.push(`${name} is missing`)
    return value ?? ''
  }
  const oneOf = <T extends string>(name: string, values: readonly T[]): T => {
    const value = said(name) ?? values[0]
    if (!values.includes(value as T)) wrong.push(`${name} is not one of ${values.join(', ')}`)
    return value as T
  }
  const wholeNumber = (name: string, otherwise: number, most: number): number => {
    const value = Number(said(name) ?? otherwise)
    if (!Number.isInteger(value) || value < 1 || value > most)
      wrong.push(`${name} is not a whole number from 1 to ${most}`)
    return value
  }
  const anchors = (name: string): string[] | undefined => {
    const text = said(name)
    const found = text === undefined ? undefined : readAnchors(text)
    if (found?.length === 0) wrong.push(`${name} holds something else than CA certificates`)
    return found
  }
  const routes = (name: string): LegacyRoute[] =>
    (said(name) ?? '').split(',').flatMap((text) => {
      if (!text.trim()) return []
      const route = readRoute(text.trim())
      if (!route) wrong.push(`${name} holds something else than ${legacyNames.join(', ')}`)
      return route ?? []
    })

  const issuer = oneOf('CERTVEND_ISSUER', issuers)
  const ca = issuer === 'aws-iot' ? undefined : needed('CERTVEND_CA')
  const caCertificateId = said('CERTVEND_CA_CERTIFICATE_ID')
  if (ca?.includes(':kms:') && caCertificateId === undefined)
    wrong.push('CERTVEND_CA_CERTIFICATE_ID is missing: a KMS key comes without a certificate')
  const mqttHost = said('CERTVEND_MQTT_HOST')
  const mqttPort = wholeNumber('CERTVEND_MQTT_PORT', 8883, 65_535)
  const mqttAnchors = anchors('CERTVEND_MQTT_ANCHORS')
  if (mqttAnchors && mqttHost === undefined)
    wrong.push('CERTVEND_MQTT_ANCHORS belongs to CERTVEND_MQTT_HOST, which is missing')
  const settings: Settings = {
    registry: {
      table: needed('CERTVEND_DEVICE_TABLE'),
      ledger: needed('CERTVEND_LEDGER_TABLE'),
      shape: oneOf('CERTVEND_TABLE_SHAPE', ['device-info', 'iot-atlas']),
      keepPlainTokens: oneOf('CERTVEND_KEEP_PLAIN_TOKENS', ['false', 'true']) === 'true',
    },
    issuer,
    ...(ca !== undefined && { ca }),
    ...(caCertificateId !== undefined && { caCertificateId }),
    validityMs: wholeNumber('CERTVEND_CERTIFICATE_DAYS', 365, 9000) * day,
    policyName: needed('CERTVEND_POLICY'),
    ...(mqttHost !== undefined && { mqttHost }),
    mqttPort,
    ...(mqttPort === 443 && { mqttAlpn: 'x-amzn-mqtt-ca' as const }),
    ...(mqttAnchors && { mqttAnchors }),
    dialects: routes('CERTVEND_DIALECTS'),
    shadow: oneOf('CERTVEND_SHADOW', ['false', 'true']) === 'true',
  }
  if (wrong.length > 0) throw new Error(`the function's environment: ${wrong.join('; ')}`)
  return settings
}

/**
 * CAs in a text that may have lost its line breaks: the console's input fields do that. Empty when any
 * of it is not a CA.
 */
function readAnchors(text: string): string[] {
  const blocks = [...text.matchAll(/-----BEGIN CERTIFICATE-----([^-]+)-----END CERTIFICATE-----/g)]
  try {
    const anchors = blocks.map(
      ([, base64 = '']) => new X509Certificate(Buffer.from(base64, 'base64')),
    )
    return anchors.every(({ ca }) => ca) ? anchors.map(String) : []
  } catch {
    return []
  }
}
