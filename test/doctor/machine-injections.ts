/** Faults of the device itself: its clock, its files, its store, its processes. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { openCredentialStore } from '@certvend/client'
import { expect, onTestFinished } from 'vitest'
import { certificateIdOf, certify, yesteryear } from '../pki.ts'
import type { FaultName } from './faults.ts'
import type { Injection } from './injection.ts'
import { certvend, clockAt, handOn, mountDisk } from './scene.ts'
import { aYear } from './servers.ts'

const hour = 3600_000
const day = 24 * hour
const fromNow = (ms: number): Date => new Date(Date.now() + ms)

export const machineInjections = {
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
      const { digest: _, ...record } = JSON.parse(fs.readFileSync(file, 'utf8'))
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
  'consumer-not-well': {
    after: 'enrolled',
    inject: async (scene) => {
      expect(await handOn(scene, ['/bin/false'])).toMatchObject({ code: 1 })
    },
  },
} satisfies Partial<Record<FaultName, Injection>>
