import { describe, expect, it } from 'vitest'
import { day } from '../src/clock.ts'
import { makeDeviceCa } from '../src/issuer/local.ts'
import { readSettings } from '../src/lambda/settings.ts'
import { movableClock } from './machine.ts'

const least = {
  CERTVEND_DEVICE_TABLE: 'devices',
  CERTVEND_LEDGER_TABLE: 'ledger',
  CERTVEND_POLICY: 'device-policy',
}

describe('the environment of a function', () => {
  it('needs three names, and has good values for the rest', () => {
    expect(readSettings(least)).toEqual({
      registry: {
        table: 'devices',
        ledger: 'ledger',
        shape: 'device-info',
        keepPlainTokens: false,
      },
      issuer: 'aws-iot',
      validityMs: 365 * day,
      policyName: 'device-policy',
      mqttPort: 8883,
      dialects: [],
      shadow: false,
    })
  })

  it('with empty variables is as one without them, as CloudFormation fills it', () => {
    const empty = {
      CERTVEND_CA: '',
      CERTVEND_MQTT_HOST: '',
      CERTVEND_MQTT_ANCHORS: ' ',
      CERTVEND_DIALECTS: '',
    }
    expect(readSettings({ ...least, ...empty })).toEqual(readSettings(least))
  })

  it('names old vending machines, with a prefix each where two share a URL', () => {
    const names = 'awslabs-2018=/LATEST, awslabs-2020=/Prod,iot-atlas'
    expect(readSettings({ ...least, CERTVEND_DIALECTS: names }).dialects).toEqual([
      { name: 'awslabs-2018', prefix: '/LATEST' },
      { name: 'awslabs-2020', prefix: '/Prod' },
      { name: 'iot-atlas' },
    ])
  })

  it('on port 443 asks for the ALPN protocol of IoT Core', () => {
    expect(readSettings({ ...least, CERTVEND_MQTT_PORT: '443' })).toMatchObject({
      mqttPort: 443,
      mqttAlpn: 'x-amzn-mqtt-ca',
    })
  })

  it('may hold anchors whose line breaks a form took away', async () => {
    const { certificate } = await makeDeviceCa(movableClock())
    const at = { ...least, CERTVEND_MQTT_HOST: 'mqtt.example' }
    const read = (text: string) => readSettings({ ...at, CERTVEND_MQTT_ANCHORS: text }).mqttAnchors
    expect(read(certificate + certificate)).toEqual([certificate, certificate])
    expect(read(certificate.replaceAll('\n', ' '))).toEqual([certificate])
  })

  it('that is wrong is refused once, with everything that is wrong and none of its values', () => {
    const secret = 'not-a-number-but-a-secret'
    const wrong = {
      CERTVEND_ISSUER: secret,
      CERTVEND_MQTT_PORT: secret,
      CERTVEND_CERTIFICATE_DAYS: '0',
      CERTVEND_MQTT_ANCHORS: secret,
      CERTVEND_TABLE_SHAPE: secret,
      CERTVEND_KEEP_PLAIN_TOKENS: 'yes',
      CERTVEND_SHADOW: 'yes',
      CERTVEND_DIALECTS: secret,
    }
    let message = ''
    try {
      readSettings(wrong)
    } catch (error) {
      message = String(error)
    }
    for (const name of [...Object.keys(least), ...Object.keys(wrong)])
      expect(message).toContain(name)
    expect(message).not.toContain(secret)
  })

  it('for a CA of its own names the secret that holds it', () => {
    for (const issuer of ['aws-iot-own-ca', 'aws-iot-jitr'])
      expect(() => readSettings({ ...least, CERTVEND_ISSUER: issuer })).toThrow(
        'CERTVEND_CA is missing',
      )
  })

  it('for a CA in KMS names its certificate too', () => {
    const CERTVEND_CA = 'arn:aws:kms:eu-west-1:123456789012:key/1234'
    expect(() =>
      readSettings({ ...least, CERTVEND_ISSUER: 'aws-iot-own-ca', CERTVEND_CA }),
    ).toThrow('CERTVEND_CA_CERTIFICATE_ID is missing')
  })
})
