/** The examples over AWS's SDK, each as a process of its own, against mosquitto. */
import { mkdtempSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { filesOf, runExample } from './example.ts'
import { type Mosquitto, mosquittoMissing, startMosquitto } from './mosquitto.ts'
import { type Certified, certify, certifyRequest } from './pki.ts'
import { makeToken, tokenPackagesMissing } from './softhsm.ts'

const missing = [...(mosquittoMissing ? [mosquittoMissing] : [])]

describe.skipIf(missing.length > 0)(`against mosquitto ${missing}`, () => {
  let mosquitto: Mosquitto
  let mqttCa: Certified
  let deviceCa: Certified
  beforeAll(async () => {
    mqttCa = await certify('MQTT CA', { ca: true })
    deviceCa = await certify('Device CA', { ca: true })
    const server = await certify('localhost', { issuer: mqttCa, dns: ['localhost'] })
    const acl = ['pattern readwrite certvend/%u/#']
    mosquitto = await startMosquitto({ server, deviceCa, acl })
  })
  afterAll(() => mosquitto.close())

  it('iot-core-aws-sdk says hello and ends', async () => {
    const device = await certify('device-1', { issuer: deviceCa })
    const files = filesOf({
      'anchors.pem': mqttCa.certificate,
      'device.pem': device.certificate,
      'key.pem': device.privateKey,
    })
    const { code, out, err } = await runExample(
      'iot-core-aws-sdk',
      ...['--anchors', files['anchors.pem'], `localhost:${mosquitto.port}`],
      ...['device-1', files['device.pem'], files['key.pem']],
    )
    expect({ code, err }).toEqual({ code: 0, err: '' })
    expect(out).toBe('certvend/device-1/hello: hello from device-1\n')
  })

  const packages = tokenPackagesMissing.join(', ')
  describe.skipIf(packages)(
    `hardware-key${packages && ` (skipped: apt install ${packages})`}`,
    () => {
      const directory = mkdtempSync(path.join(realpathSync(tmpdir()), 'certvend-token-'))
      afterAll(() => rmSync(directory, { recursive: true }))

      it('asks with a key in a token, and connects with it', async () => {
        const token = makeToken(directory, '471147')
        token.makeKey('device', 'EC:prime256v1')
        process.env.SOFTHSM2_CONF = token.configuration
        const asked = await runExample('hardware-key', 'request', token.uri('device'), 'device-2')
        expect(asked).toMatchObject({ code: 0, err: '' })
        const files = filesOf({
          'anchors.pem': mqttCa.certificate,
          'device.pem': await certifyRequest(asked.out, 'device-2', { issuer: deviceCa }),
        })
        const { code, out, err } = await runExample(
          'hardware-key',
          ...['--anchors', files['anchors.pem'], `localhost:${mosquitto.port}`],
          ...['device-2', files['device.pem'], token.uri('device')],
        )
        expect({ code, err }).toEqual({ code: 0, err: '' })
        expect(out).toBe('device-2 published with a key in its token\n')
      })
    },
  )

  it.each(['iot-core-aws-sdk', 'hardware-key'])(
    '%s without arguments says how it is called',
    async (example) => {
      const { code, err } = await runExample(example)
      expect(code).toBe(2)
      expect(err).toContain(`usage: node ${example}.js`)
    },
  )
})
