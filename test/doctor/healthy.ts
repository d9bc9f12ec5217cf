/** Healthy set-ups, made as people make them; the list is in `faults.ts`. */
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import type { LabOptions } from '@certvend/server/lab'
import { onTestFinished } from 'vitest'
import { startHttpProxy } from '../http-proxy.ts'
import { startMosquitto } from '../mosquitto.ts'
import { cable, makeNamespace } from '../namespaces.ts'
import { certify } from '../pki.ts'
import type { HealthyName } from './faults.ts'
import { moveInto, moveLab, pair } from './networks.ts'
import { handOn, redirect, type Scene } from './scene.ts'

export interface SetUp {
  readonly lab?: LabOptions
  readonly make: (scene: Scene) => Promise<unknown> | unknown
}

const nobody = 65534

/** A state directory of a user without rights. */
function ownedByNobody({ at }: Scene): void {
  fs.mkdirSync(at('state'), { mode: 0o700 })
  fs.chownSync(at('state'), nobody, nobody)
  fs.chownSync(at('token'), nobody, nobody)
}

export const setUps: Readonly<Record<HealthyName, SetUp>> = {
  online: { make: (scene) => scene.daemon('publish.acknowledged') },
  stopped: { make: (scene) => scene.enroll() },
  'first-boot': { make: () => {} },
  'consumer-well': {
    make: async (scene) => {
      await scene.enroll()
      const { code, stderr } = await handOn(scene, ['/bin/true'])
      if (code !== 0) throw new Error(stderr)
    },
  },
  'claim-cleared-away': {
    make: async (scene) => {
      await scene.enroll()
      for (const name of ['token', 'pin.pem']) fs.rmSync(scene.at(name))
      scene.flags = ['--state-dir', scene.at('state')]
    },
  },
  configured: {
    make: async (scene) => {
      const next = await scene.lab.pki.issueCa({ commonName: 'Lab intermediate to come' })
      fs.writeFileSync(scene.at('next.pem'), next.certificate)
      scene.settings.pins = ['pin.pem', 'next.pem']
      scene.more = '[mqtt]\nkeep_alive = 120\n'
      await scene.daemon('publish.acknowledged')
    },
  },
  'behind-a-proxy': {
    lab: { host: 'lab.example' },
    make: async (scene) => {
      const credentials = 'gateway:canary-of-proxy'
      const proxy = await startHttpProxy({ credentials, hosts: { 'lab.example': '127.0.0.1' } })
      onTestFinished(() => proxy.close())
      scene.env = { HTTPS_PROXY: `http://${credentials}@127.0.0.1:${proxy.port}` }
      await scene.enroll()
    },
  },
  'ipv6-only': {
    make: async (scene) => {
      const device = makeNamespace('device', { hosts: 'fd77::2 lab.example' })
      const far = makeNamespace('far')
      cable([device, 'fd77::1/64'], [far, 'fd77::2/64'])
      moveInto(device, scene)
      await moveLab(far, scene, { address: '::', ports: { vending: 443, mqtt: 8883 } })
      await scene.daemon('publish.acknowledged')
    },
  },
  'own-user': {
    make: async (scene) => {
      ownedByNobody(scene)
      scene.user = nobody
      await scene.daemon('publish.acknowledged')
    },
  },
  'root-beside': {
    make: async (scene) => {
      ownedByNobody(scene)
      scene.user = nobody
      await scene.daemon('publish.acknowledged')
      scene.user = undefined
    },
  },
  'group-member': {
    make: async (scene) => {
      ownedByNobody(scene)
      fs.mkdirSync(scene.at('run'), { mode: 0o750 })
      fs.chownSync(scene.at('run'), nobody, nobody)
      scene.env = { RUNTIME_DIRECTORY: scene.at('run') }
      scene.user = nobody
      await scene.daemon('publish.acknowledged')
      scene.user = 1
      scene.group = nobody
    },
  },
  linked: {
    make: async (scene) => {
      fs.mkdirSync(scene.at('private/state'), { recursive: true, mode: 0o700 })
      fs.symlinkSync('private/state', scene.at('state'))
      await scene.enroll()
    },
  },
  'port-443': {
    make: async (scene) => {
      const { far } = pair(scene, { hosts: '10.77.3.2 lab.example' })
      await moveLab(far, scene, { address: '0.0.0.0', ports: { vending: 8443, mqtt: 443 } })
      await scene.enroll()
      redirect(scene, { alpn: 'x-amzn-mqtt-ca' })
    },
  },
  mosquitto: {
    make: async (scene) => {
      await scene.enroll()
      const ca = await certify('Broker CA', { ca: true })
      const broker = await startMosquitto({
        server: await certify('broker', { issuer: ca, dns: ['localhost'] }),
        deviceCa: { certificate: scene.lab.pki.deviceCa.certificate } as typeof ca,
      })
      onTestFinished(() => broker.close())
      trust(scene, ca.certificate)
      redirect(scene, { port: broker.port })
    },
  },
}

/** Lets the stored credential trust another CA for its broker, as if it had been vended so. */
function trust(scene: Scene, pem: string): void {
  const file = scene.at('state/current/credential.json')
  const { digest: _, ...record } = JSON.parse(fs.readFileSync(file, 'utf8'))
  fs.writeFileSync(scene.at('state/current/trust-anchors.pem'), pem)
  record.files['trust-anchors.pem'] = createHash('sha256').update(pem).digest('hex')
  fs.writeFileSync(file, JSON.stringify(record))
}
