/** How each fault is put in; the list of them, and what must be found, is in `faults.ts`. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { connect, openCredentialStore } from '@certvend/client'
import type { LabOptions } from '@certvend/server/lab'
import { expect, onTestFinished } from 'vitest'
import { startHttpProxy } from '../http-proxy.ts'
import { certificateIdOf, certify, yesteryear } from '../pki.ts'
import type { FaultName } from './faults.ts'
import { networkInjections } from './networks.ts'
import { certvend, clockAt, credentialOf, mountDisk, redirect, type Scene } from './scene.ts'
import {
  aYear,
  brokerIdentity,
  closesOnPublish,
  deafPort,
  listen,
  plainMosquitto,
  redirects,
} from './servers.ts'

export interface Injection {
  /** How far the device has come before: default, whatever the other one of a pair wants. */
  readonly after?: 'nothing' | 'enrolled' | 'online'
  /** What the lab must be for it. */
  readonly lab?: LabOptions
  /** Before the device has done anything. */
  readonly prepare?: (scene: Scene) => Promise<void> | void
  readonly inject: (scene: Scene) => Promise<void> | void
}

const hour = 3600_000
const day = 24 * hour
const fromNow = (ms: number): Date => new Date(Date.now() + ms)

const json = (body: string, init: ResponseInit = {}): Response =>
  new Response(body, { ...init, headers: { 'content-type': 'application/json', ...init.headers } })

const everything =
  (respond: () => Response): NonNullable<LabOptions['intercept']> =>
  async () =>
    respond()

async function proxied(scene: Scene, options: Parameters<typeof startHttpProxy>[0]) {
  const proxy = await startHttpProxy({ hosts: { 'lab.example': '127.0.0.1' }, ...options })
  onTestFinished(() => proxy.close())
  scene.env = { ...scene.env, HTTPS_PROXY: `http://127.0.0.1:${proxy.port}` }
  return proxy
}

const behindProxy: LabOptions = { host: 'lab.example' }

export const injections: Readonly<Record<FaultName, Injection>> = {
  'clock-1970': {
    after: 'enrolled',
    inject: (scene) => {
      scene.env = clockAt(new Date('1970-01-02T00:00:00Z'))
    },
  },
  'clock-behind': {
    after: 'nothing',
    inject: (scene) => {
      scene.env = clockAt(fromNow(-2 * day))
    },
  },
  'clock-ahead-first-boot': {
    after: 'nothing',
    inject: (scene) => {
      scene.env = clockAt(fromNow(3650 * day))
    },
  },
  'clock-ahead-enrolled': {
    after: 'enrolled',
    inject: (scene) => {
      scene.env = clockAt(fromNow(3650 * day))
    },
  },
  'clock-an-hour-off': {
    after: 'enrolled',
    inject: (scene) => {
      scene.env = clockAt(fromNow(hour))
    },
  },
  'unknown-key': {
    inject: (scene) => {
      scene.more = 'sever = "https://vending.example.com"\n'
    },
  },
  'broken-toml': {
    inject: (scene) => {
      scene.settings.url = undefined
      scene.more = 'url = "https://vending.example.com\n'
    },
  },
  'url-without-tls': {
    after: 'nothing',
    inject: (scene) => {
      scene.settings.url = scene.settings.url?.replace('https:', 'http:')
    },
  },
  'pin-missing': { after: 'nothing', inject: ({ at }) => fs.rmSync(at('pin.pem')) },
  'pin-leaf': {
    after: 'nothing',
    inject: async ({ at, lab }) => {
      const { certificateChain } = await lab.pki.issueServer({ issuer: lab.pki.intermediate })
      fs.writeFileSync(
        at('pin.pem'),
        certificateChain.split(/(?<=END CERTIFICATE-----\n)/)[0] ?? '',
      )
    },
  },
  'pin-empty': { after: 'nothing', inject: ({ at }) => fs.truncateSync(at('pin.pem')) },
  'pin-expired': {
    after: 'nothing',
    inject: async ({ at, lab }) => {
      const old = await lab.pki.issueCa({ commonName: 'Lab intermediate of 2020', ...aYear(2020) })
      fs.writeFileSync(at('pin.pem'), old.certificate)
    },
  },
  'pin-sibling': {
    after: 'nothing',
    inject: async (scene) => {
      scene.settings.url = (await scene.lab.serveUnderSibling()).vendingUrl
    },
  },
  'token-missing': { after: 'nothing', inject: ({ at }) => fs.rmSync(at('token')) },
  'token-of-two-lines': {
    after: 'nothing',
    inject: ({ at, token }) => fs.writeFileSync(at('token'), `serial 1\n${token}\n`),
  },
  'token-open': { after: 'nothing', inject: ({ at }) => fs.chmodSync(at('token'), 0o644) },
  'serial-placeholder': {
    after: 'nothing',
    inject: (scene) => {
      fs.writeFileSync(scene.at('serial'), 'To be filled by O.E.M.\n')
      scene.settings.serial = { file: 'serial' }
    },
  },
  'serial-of-another': {
    after: 'enrolled',
    inject: (scene) => {
      scene.settings.serial = 'GW-another'
    },
  },
  'store-open': { after: 'enrolled', inject: ({ at }) => fs.chmodSync(at('state'), 0o777) },
  'store-of-another-user': {
    after: 'enrolled',
    inject: (scene) => {
      fs.chownSync(scene.at('state'), 1, 1)
      scene.user = 65534
    },
  },
  'key-open': {
    after: 'enrolled',
    inject: ({ at }) => fs.chmodSync(at('state/current/private-key.pem'), 0o640),
  },
  'key-damaged': {
    after: 'enrolled',
    inject: ({ at }) => fs.truncateSync(at('state/current/private-key.pem'), 40),
  },
  'key-of-another-certificate': {
    after: 'enrolled',
    inject: async ({ at }) => {
      const { generateKeyPairSync, createHash } = await import('node:crypto')
      const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
      const pem = privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()
      const file = at('state/current/credential.json')
      const record = JSON.parse(fs.readFileSync(file, 'utf8'))
      record.files['private-key.pem'] = createHash('sha256').update(pem).digest('hex')
      fs.writeFileSync(at('state/current/private-key.pem'), pem)
      fs.writeFileSync(file, JSON.stringify(record))
    },
  },
  'disk-full': {
    after: 'enrolled',
    prepare: ({ at }) => mountDisk(at('state'), 'size=512k'),
    inject: ({ at }) => {
      const file = fs.openSync(at('state', 'log-of-somebody'), 'w')
      try {
        for (;;) fs.writeSync(file, Buffer.alloc(4096))
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOSPC' })
      } finally {
        fs.closeSync(file)
      }
    },
  },
  'inodes-gone': {
    after: 'enrolled',
    prepare: ({ at }) => mountDisk(at('state'), 'size=8m,nr_inodes=64'),
    inject: ({ at }) => {
      try {
        for (let number = 0; ; number++) fs.writeFileSync(at('state', `mail-${number}`), '')
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOSPC' })
      }
    },
  },
  'disk-read-only': {
    after: 'enrolled',
    prepare: ({ at }) => mountDisk(at('state'), 'size=8m'),
    inject: async ({ at }) => {
      const { spawnSync } = await import('node:child_process')
      expect(spawnSync('mount', ['-o', 'remount,ro', at('state')]).status).toBe(0)
    },
  },
  'certificate-expired': {
    after: 'nothing',
    inject: async (scene) => {
      const store = await openCredentialStore(scene.at('state'))
      const spki = store.begin().privateKey.publicKey.export({ type: 'spki', format: 'der' })
      const { certificate } = await certify(scene.deviceSerial, {
        publicKey: new Uint8Array(spki),
        notAfter: yesteryear,
      })
      const { host, port, trustAnchors } = scene.lab.mqtt
      store.issue({
        deviceSerial: scene.deviceSerial,
        thingName: scene.deviceSerial,
        certificateId: certificateIdOf(certificate),
        certificateChain: certificate,
        endpoint: { host, port, trustAnchors: [...trustAnchors] },
        keyOrigin: 'device',
        issuedAt: new Date(),
      })
      store.close()
    },
  },
  'store-held': {
    after: 'enrolled',
    inject: async ({ at }) => {
      const holder = spawn('flock', [at('state/lock'), 'sh', '-c', 'echo held; exec sleep 300'])
      onTestFinished(() => void holder.kill('SIGKILL'))
      await new Promise((resolve) => holder.stdout.once('data', resolve))
    },
  },
  'daemon-suspended': {
    after: 'nothing',
    inject: async (scene) => {
      const agent = await scene.daemon('publish.acknowledged')
      agent.kill('SIGSTOP')
      onTestFinished(() => void agent.kill('SIGCONT'))
    },
  },
  'vending-refuses': {
    inject: async (scene) => {
      scene.settings.url = `https://localhost:${await deafPort()}`
    },
  },
  'broker-down': { after: 'enrolled', inject: ({ lab }) => lab.mqtt.close() },
  'proxy-down': {
    after: 'nothing',
    lab: behindProxy,
    inject: async (scene) => {
      scene.env = { HTTPS_PROXY: `http://127.0.0.1:${await deafPort()}` }
    },
  },
  'proxy-wants-credentials': {
    after: 'nothing',
    lab: behindProxy,
    inject: async (scene) =>
      void (await proxied(scene, { credentials: 'gateway:canary-of-proxy' })),
  },
  'proxy-forbids-8883': {
    after: 'enrolled',
    lab: behindProxy,
    prepare: async (scene) => {
      const { port } = scene.lab.mqtt
      await proxied(scene, {
        instead: (socket, target, open) =>
          target.endsWith(`:${port}`)
            ? void socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n')
            : open(),
      })
    },
    inject: () => {},
  },
  'proxy-is-no-url': {
    inject: (scene) => {
      scene.env = { HTTPS_PROXY: 'socks5://user:canary-of-proxy@127.0.0.1:1080' }
    },
  },
  'portal-with-its-own-name': {
    after: 'nothing',
    inject: async (scene) => {
      const ca = await scene.lab.pki.issueCa({ commonName: 'Hotel CA' })
      const names = ['login.hotel.example']
      const identity = await scene.lab.pki.issueServer({ issuer: ca, names })
      scene.settings.url = `https://localhost:${await listen(redirects, identity)}`
    },
  },
  'portal-without-tls': {
    after: 'nothing',
    inject: async (scene) => {
      scene.settings.url = `https://localhost:${await listen(redirects)}`
    },
  },
  inspection: {
    after: 'nothing',
    inject: async (scene) => {
      const ca = await scene.lab.pki.issueCa({ commonName: 'Corp TLS Inspection CA' })
      const identity = await scene.lab.pki.issueServer({ issuer: ca })
      scene.settings.url = (await scene.lab.serveWith(identity)).vendingUrl
    },
  },
  'vending-certificate-expired': {
    after: 'nothing',
    inject: async (scene) => {
      const { pki } = scene.lab
      const identity = await pki.issueServer({ issuer: pki.intermediate, ...aYear(2020) })
      scene.settings.url = (await scene.lab.serveWith(identity)).vendingUrl
    },
  },
  'vending-certificate-misnamed': {
    after: 'nothing',
    inject: async (scene) => {
      const { pki } = scene.lab
      const names = ['other.example']
      const identity = await pki.issueServer({ issuer: pki.intermediate, names })
      scene.settings.url = (await scene.lab.serveWith(identity)).vendingUrl
    },
  },
  'web-page': {
    after: 'nothing',
    lab: {
      intercept: everything(
        () => new Response('<html>It works!</html>', { headers: { 'content-type': 'text/html' } }),
      ),
    },
    inject: () => {},
  },
  'another-dialect': {
    after: 'nothing',
    lab: { intercept: everything(() => json('{"message":"Device does not exist"}')) },
    inject: () => {},
  },
  'vending-busy': {
    after: 'nothing',
    lab: {
      intercept: everything(
        () => new Response(null, { status: 503, headers: { 'retry-after': '120' } }),
      ),
    },
    inject: () => {},
  },
  'claim-unknown': {
    after: 'nothing',
    inject: async (scene) => {
      scene.settings.serial = 'GW-unknown'
      await scene.daemon('enroll.retry')
    },
  },
  'claim-spent': {
    after: 'enrolled',
    inject: async (scene) => {
      fs.rmSync(scene.at('state'), { recursive: true })
      const agent = await scene.daemon('enroll.retry')
      // The agent is stopped; what it was told is in its journal.
      const gone = new Promise((resolve) => agent.once('close', resolve))
      agent.removeAllListeners('close')
      agent.once('close', () => {})
      agent.kill('SIGTERM')
      await Promise.race([gone, new Promise((resolve) => agent.once('exit', resolve))])
    },
  },
  deferred: {
    after: 'nothing',
    lab: {
      intercept: async (request, answer) =>
        request.method === 'POST'
          ? new Response(null, { status: 202, headers: { 'retry-after': '7200' } })
          : answer(),
    },
    inject: async (scene) => void (await scene.daemon('enroll.retry')),
  },
  'certificate-inactive': {
    after: 'enrolled',
    inject: async ({ lab, deviceSerial }) => {
      expect(await lab.registry.setDisabled(deviceSerial, true, new Date())).toBe(true)
    },
  },
  'publish-forbidden': {
    after: 'enrolled',
    inject: async (scene) =>
      redirect(scene, { port: await listen(closesOnPublish, await brokerIdentity(scene)) }),
  },
  'client-id-twice': {
    after: 'enrolled',
    inject: async (scene) => {
      const credential = await credentialOf(scene)
      const over = new AbortController()
      onTestFinished(() => over.abort())
      const clone = async (): Promise<void> => {
        while (!over.signal.aborted) {
          const session = await connect(credential, { signal: over.signal })
          opened()
          await session.ended
        }
      }
      let opened = (): void => {}
      const first = new Promise<void>((resolve) => {
        opened = resolve
      })
      clone().catch(() => {})
      await first
    },
  },
  'broker-of-another-ca': {
    after: 'enrolled',
    inject: async (scene) => {
      const ca = await scene.lab.pki.issueCa({ commonName: 'Another broker CA', pathLength: 0 })
      const identity = await scene.lab.pki.issueServer({ issuer: ca, sends: [] })
      redirect(scene, { port: await listen(closesOnPublish, identity) })
    },
  },
  'broker-without-tls': {
    after: 'enrolled',
    inject: async (scene) => redirect(scene, { port: await plainMosquitto() }),
  },
  'broker-silent': {
    after: 'enrolled',
    inject: async (scene) => redirect(scene, { port: await listen(() => {}) }),
  },
  'version-skew': {
    after: 'enrolled',
    inject: async (scene) => {
      const home = path.dirname(path.dirname(certvend))
      const old = scene.at('old-agent')
      fs.mkdirSync(old)
      fs.cpSync(path.join(home, 'dist'), path.join(old, 'dist'), { recursive: true })
      fs.symlinkSync(path.join(home, 'node_modules'), path.join(old, 'node_modules'))
      const manifest = JSON.parse(fs.readFileSync(path.join(home, 'package.json'), 'utf8'))
      const older = JSON.stringify({ ...manifest, version: '0.0.9' })
      fs.writeFileSync(path.join(old, 'package.json'), older)
      await scene.daemon('publish.acknowledged', path.join(old, 'dist/main.js'))
    },
  },
  ...networkInjections,
}
