/** The main job as others see it: openssl, mosquitto, the examples, the demo. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  type Credential,
  connect,
  createClaim,
  createVendingServer,
  ensureCredential,
  type KeyAlgorithm,
  keyAlgorithms,
  openCredentialStore,
} from '@certvend/client'
import { type Lab, startLab } from '@certvend/server/lab'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { credentialFor } from './device.ts'
import { mosquittoMissing, startMosquitto } from './mosquitto.ts'
import { certify } from './pki.ts'
import { temporaryDirectory } from './temporary.ts'

const opensslMissing = spawnSync('openssl', ['version']).error ? 'openssl is not installed' : ''
const example = (name: string): string =>
  fileURLToPath(import.meta.resolve(`@certvend/examples/${name}.js`))

let lab: Lab
beforeAll(async () => {
  lab = await startLab()
})
afterAll(() => lab.close())

/** A device that has just booted for the first time. */
async function enrolled(
  keyAlgorithm?: KeyAlgorithm,
): Promise<{ directory: string; credential: Credential }> {
  const directory = path.join(temporaryDirectory(), 'state')
  const store = await openCredentialStore(directory)
  const server = createVendingServer({ url: lab.vendingUrl, pins: lab.pins })
  const claim = createClaim(await lab.addDevice())
  const credential = await ensureCredential(
    store,
    server,
    claim,
    keyAlgorithm ? { keyAlgorithm } : {},
  )
  store.close()
  return { directory, credential }
}

describe.skipIf(opensslMissing)('openssl', () => {
  it.each(keyAlgorithms)(
    'verifies a certificate for a %s key, and finds the key its own',
    async (algorithm) => {
      const { directory } = await enrolled(algorithm)
      const file = (name: string): string => path.join(directory, 'current', name)
      const deviceCa = path.join(directory, 'device-ca.pem')
      fs.writeFileSync(deviceCa, lab.pki.deviceCa.certificate)
      const verified = execFileSync('openssl', [
        'verify',
        '-x509_strict',
        '-purpose',
        'sslclient',
        '-CAfile',
        deviceCa,
        file('certificate.pem'),
      ])
      expect(verified.toString()).toContain('certificate.pem: OK')
      const fromKey = execFileSync('openssl', ['pkey', '-in', file('private-key.pem'), '-pubout'])
      const fromCertificate = execFileSync('openssl', [
        'x509',
        '-in',
        file('certificate.pem'),
        '-noout',
        '-pubkey',
      ])
      expect(fromKey.toString()).toBe(fromCertificate.toString())
    },
  )
})

describe.skipIf(mosquittoMissing)('mosquitto with require_certificate', () => {
  it('admits a vended certificate and refuses one of another CA', async () => {
    const { credential } = await enrolled()
    const root = await certify('mosquitto root', { ca: true })
    const server = await certify('mosquitto', { issuer: root, dns: ['localhost'] })
    const broker = await startMosquitto({
      server,
      deviceCa: { ...root, certificate: lab.pki.deviceCa.certificate },
    })
    try {
      const endpoint = { host: 'localhost', port: broker.port, trustAnchors: [root.certificate] }
      const session = await connect({ ...credential, endpoint })
      await session.publish('main/job', 'done')
      await session.close()
      expect(broker.log).toContain(`as ${credential.thingName}`)

      const stranger = await certify('stranger', { issuer: root })
      const refused = connect(credentialFor(stranger, endpoint))
      await expect(refused).rejects.toMatchObject({ code: 'ERR_CREDENTIAL_REFUSED' })
    } finally {
      await broker.close()
    }
  })
})

/** Runs a program of ours to its end, from outside of vitest. */
function run(
  file: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<{ code: number | null; out: string; errors: string }> {
  const child = spawn(process.execPath, [file, ...args], {
    env: { PATH: process.env.PATH, TMPDIR: tmpdir(), ...env },
  })
  let out = ''
  let errors = ''
  child.stdout.on('data', (chunk) => {
    out += chunk
  })
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  return new Promise((resolve) => child.once('close', (code) => resolve({ code, out, errors })))
}

describe('the examples', () => {
  it('firmware enrolls once, sends its readings, and asks nobody on the next boot', async () => {
    const directory = temporaryDirectory()
    const { deviceSerial, token } = await lab.addDevice()
    const write = (name: string, content: string): string => {
      fs.writeFileSync(path.join(directory, name), content, { mode: 0o600 })
      return path.join(directory, name)
    }
    const env = {
      CERTVEND_URL: lab.vendingUrl,
      CERTVEND_PINS: write('pins.pem', lab.pins),
      CERTVEND_SERIAL: deviceSerial,
      CERTVEND_TOKEN_FILE: write('token', `${token}\n`),
      STATE_DIRECTORY: path.join(directory, 'state'),
      READINGS: '1',
    }
    const first = await run(example('firmware'), [], env)
    expect(first).toMatchObject({ code: 0, errors: '' })
    expect(first.out).toBe(`enrolled as ${deviceSerial}\nreading 1 acknowledged\n`)
    const asked = lab.requests.length
    const second = await run(example('firmware'), [], env)
    expect(second.out).toBe(`known as ${deviceSerial}\nreading 1 acknowledged\n`)
    expect(lab.requests).toHaveLength(asked)
    expect(
      lab.mqtt.received.filter(({ topic }) => topic === `readings/${deviceSerial}`),
    ).toHaveLength(2)
  })

  it('connect sends one message with the identity that is there', async () => {
    const { directory, credential } = await enrolled()
    const sent = await run(example('connect'), [directory, 'a/topic', 'hello'])
    expect(sent).toEqual({
      code: 0,
      out: `${credential.thingName} published 5 characters to a/topic\n`,
      errors: '',
    })
  })

  it('connect says what to do where there is no credential', async () => {
    const sent = await run(example('connect'), [temporaryDirectory(), 'a/topic', 'hello'])
    expect(sent).toMatchObject({ code: 1, out: '' })
    expect(sent.errors).toContain('run: certvend enroll')
  })
})

describe('the demo', () => {
  it('boots three times, ends with 0 and leaves nothing behind', async () => {
    const place = temporaryDirectory()
    const demo = await run(example('demo'), [], { TMPDIR: place })
    expect(demo).toMatchObject({ code: 0, errors: '' })
    expect(demo.out).toContain('the vending machine was asked 0 times')
    expect(demo.out).toContain('no pin vouches for localhost')
    expect(fs.readdirSync(place)).toEqual([])
  })
})
