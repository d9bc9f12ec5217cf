import { KeyObject, webcrypto } from 'node:crypto'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { X509CertificateGenerator } from '../src/x509.ts'
import { makeWorkplace, type Workplace } from './command.ts'
import { makeDeviceKey } from './device.ts'
import { send } from './https.ts'

let directory: string
let run: Workplace['run']
let device: Workplace['device']
let start: Workplace['start']
let remove: () => void
beforeEach(() => {
  ;({ directory, run, device, start, remove } = makeWorkplace())
})
afterEach(() => remove())

/** Key and certificate of a CA that may well be one, elsewhere. */
async function ed25519Ca(): Promise<string> {
  const keys = (await webcrypto.subtle.generateKey({ name: 'Ed25519' }, true, [
    'sign',
    'verify',
  ])) as webcrypto.CryptoKeyPair
  const signingAlgorithm = { name: 'Ed25519' }
  const made = await X509CertificateGenerator.createSelfSigned({ keys, signingAlgorithm })
  const key = KeyObject.from(keys.privateKey).export({ type: 'pkcs8', format: 'pem' })
  return `${key}${made.toString('pem')}\n`
}

describe('certvend-server serve', () => {
  it('vends to a device that is added while it runs, and ends cleanly on SIGTERM', async () => {
    const server = start([
      'serve',
      '--port',
      '0',
      '--listen',
      '127.0.0.1',
      '--certificate-days',
      '7',
    ])
    try {
      const { event, url } = JSON.parse(await server.firstLine)
      expect(event).toBe('listening')
      const pin = readFileSync(join(directory, 'certvend-data', 'tls', 'pin.pem'), 'utf8')
      const { out } = await device('add SN-1')
      const key = await makeDeviceKey()
      const answer = await send(`${url}/v1/enroll`, pin, {
        method: 'POST',
        headers: { 'content-type': 'application/json', authorization: `Bearer ${out.trim()}` },
        body: JSON.stringify({ deviceSerial: 'SN-1', csr: await key.csr('SN-1') }),
      })
      expect(answer.status).toBe(200)
      const { endpoint } = JSON.parse(answer.text)
      const root = readFileSync(join(directory, 'certvend-data', 'tls', 'root.pem'), 'utf8')
      expect(endpoint).toEqual({ host: 'localhost', port: 8883, trustAnchors: [root] })
      const [line] = (await device('list --json')).out.split('\n')
      const { certificates } = JSON.parse(line!)
      const days =
        (Date.parse(certificates[0].notAfter) - Date.parse(certificates[0].issuedAt)) / 864e5
      expect(Math.round(days)).toBe(7)
      expect((await device('show SN-1')).out).toContain('state:        enrolled\n')
    } finally {
      expect(await server.stop('SIGTERM')).toBe(0)
    }
    expect(JSON.parse(server.lines.at(-1)!).event).toBe('stopped')
    expect(server.err()).toContain('certvend-server: devices pin ')
  })

  it('says which part of its configuration cannot be used', async () => {
    const file = (name: string, text: string) => {
      const path = join(directory, name)
      writeFileSync(path, text)
      return path
    }
    const nothing = file('nothing.pem', '')
    const html = file('page.pem', '<html>')
    const tls = ['--tls-cert', html, '--tls-key', html]
    const refusals: [string[], number, string][] = [
      [['--port', '65536'], 2, '--port <port>: not a port between 0 and 65535\n'],
      [['--host', 'a b'], 2, '--host <name>: not a host name or an IP address\n'],
      [['--certificate-days', '0'], 2, '--certificate-days <days>: not a whole number above 0\n'],
      [['--mqtt-alpn', 'a b'], 2, '--mqtt-alpn <protocol>: an ALPN protocol has'],
      [['--tls-cert', html], 2, '--tls-cert and --tls-key belong together\n'],
      [tls, 2, 'with --tls-cert there is no CA here that could vouch for the MQTT server\n'],
      [['--mqtt-anchors', nothing], 2, `there is no certificate in ${nothing}\n`],
      [
        ['--mqtt-anchors', join(directory, 'x')],
        2,
        `cannot read ${join(directory, 'x')}: ENOENT\n`,
      ],
      [[...tls, '--mqtt-anchors', html], 2, `${html} or ${html} is not PEM\n`],
      [['--data-dir', html], 3, `cannot use the data directory ${html}: EEXIST\n`],
    ]
    const runs = await Promise.all(
      refusals.map(([words]) => run(['serve', '--port', '0', ...words])),
    )
    for (const [index, [words, code, start]] of refusals.entries()) {
      const { code: exit, out, err } = runs[index]!
      expect([exit, out], words.join(' ')).toEqual([code, ''])
      expect(err.startsWith(`certvend-server: ${start}`), err).toBe(true)
      expect(err).toContain('\nhint: ')
    }
    expect(existsSync(join(directory, 'certvend-data'))).toBe(false)
  })

  it('does not replace a CA that it cannot read or sign with', async () => {
    const data = join(directory, 'data')
    const server = start(['serve', '--port', '0', '--data-dir', data])
    await server.firstLine
    await server.stop('SIGTERM')
    for (const text of ['half a f', await ed25519Ca()]) {
      writeFileSync(join(data, 'device-ca.key.pem'), text)
      const { code, err } = await run(['serve', '--port', '0', '--data-dir', data])
      expect(code).toBe(3)
      expect(err).toMatch(/^certvend-server: cannot use the CA keys in .*\nhint: restore them/)
      expect(readFileSync(join(data, 'device-ca.key.pem'), 'utf8')).toBe(text)
    }
  })

  it('says which port is taken', async () => {
    const server = start(['serve', '--port', '0'])
    const { port } = JSON.parse(await server.firstLine)
    const { code, err } = await run(['serve', '--port', String(port), '--data-dir', 'second'])
    expect([code, err]).toEqual([
      1,
      `certvend-server: cannot listen on port ${port}: EADDRINUSE\nhint: another process listens there; stop it, or name another --port\n`,
    ])
    expect(await server.stop('SIGINT')).toBe(0)
  })
})

describe('certvend-server lab', () => {
  it('says what to point a device at, and leaves nothing behind', async () => {
    const lab = start(['lab', '--json', '--serial', 'SN-7'])
    const facts = JSON.parse(await lab.firstLine)
    const { tokenFile } = facts.device
    expect(facts.device.deviceSerial).toBe('SN-7')
    expect(statSync(tokenFile).mode & 0o777).toBe(0o600)
    expect(statSync(facts.stateDir).mode & 0o777).toBe(0o700)
    const pin = readFileSync(facts.pinFile, 'utf8')
    const key = await makeDeviceKey()
    const token = readFileSync(tokenFile, 'utf8').trim()
    const answer = await send(`${facts.vendingUrl}/v1/enroll`, pin, {
      method: 'POST',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({ deviceSerial: 'SN-7', csr: await key.csr('SN-7') }),
    })
    expect(answer.status).toBe(200)
    expect(JSON.parse(answer.text).endpoint.port).toBe(facts.mqtt.port)
    const added = await run(['device', 'add', 'SN-8', '--data-dir', facts.dataDir])
    expect(added.code).toBe(0)
    expect(await lab.stop('SIGTERM')).toBe(0)
    expect(existsSync(facts.dataDir)).toBe(false)
    expect(lab.lines).toHaveLength(1)
    expect(lab.err()).not.toContain(token)
  })

  it('says that a port is taken, and leaves nothing behind', async () => {
    const lab = start(['lab', '--json'])
    const { mqtt, vendingUrl } = JSON.parse(await lab.firstLine)
    for (const words of [
      ['--mqtt-port', String(mqtt.port)],
      ['--vending-port', new URL(vendingUrl).port],
    ]) {
      const { code, out, err } = await run(['lab', ...words])
      expect([code, out]).toEqual([1, ''])
      expect(err).toMatch(/^certvend-server: cannot listen: .*EADDRINUSE.*\nhint: name other ports/)
    }
    expect(await lab.stop('SIGTERM')).toBe(0)
    expect(readdirSync(directory)).toEqual([])
  })

  it('says it in words for people', async () => {
    const lab = start(['lab'])
    await lab.firstLine
    expect(await lab.stop('SIGINT')).toBe(0)
    const text = lab.lines.join('\n')
    expect(text).toMatch(/^vending machine {2}https:\/\/localhost:\d+\n/)
    expect(text).toMatch(/\n {2}certvend enroll --server https:\S+ --pin \S+pin\.pem \\\n/)
  })
})
