/**
 * The brokers that the suite runs against, each real: the lab's and mosquitto here, MiniStack's in
 * `test/aws/`. What one does not offer is a reason, which becomes part of a title.
 */
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Credential } from '@certvend/client'
import { createClaim, createVendingServer, enroll, openCredentialStore } from '@certvend/client'
import { startLab } from '@certvend/server/lab'
import { credentialFor } from '../device.ts'
import { mosquittoMissing, startMosquitto } from '../mosquitto.ts'
import { certify } from '../pki.ts'
import type { Way } from './ways.ts'

export interface RunningBroker {
  /** A device that may enter, and publish and subscribe below its own name. */
  device(name: string): Promise<Credential>
  close(): Promise<void>
}

export interface Broker {
  readonly name: string
  /** Why it cannot be started here. */
  readonly missing?: string
  /** Why it does not speak MQTT 5. */
  readonly no5?: string
  /** Why overlapping subscriptions may see a message more than once, by version of MQTT. */
  readonly copies?: Partial<Record<Way['protocol'], string>>
  /** Why a publish outside a device's policy is not refused. */
  readonly noPolicy?: string
  start(): Promise<RunningBroker>
}

const lab: Broker = {
  name: "aedes, as the lab's broker",
  no5: 'aedes speaks MQTT 3.1.1 only',
  noPolicy: 'the lab has no topic policies',
  async start() {
    const running = await startLab()
    const directory = fs.mkdtempSync(path.join(fs.realpathSync(tmpdir()), 'certvend-suite-'))
    return {
      async device(name) {
        const claim = createClaim(await running.addDevice(name))
        const store = await openCredentialStore(path.join(directory, name))
        const server = createVendingServer({ url: running.vendingUrl, pins: running.pins })
        const credential = await enroll(store, server, claim)
        store.close()
        return credential
      },
      async close() {
        await running.close()
        fs.rmSync(directory, { recursive: true })
      },
    }
  },
}

const mosquitto: Broker = {
  name: 'mosquitto',
  copies: { '5': 'it sends a copy for each of them (MQTT 5 section 3.3.4)' },
  ...(mosquittoMissing === undefined ? {} : { missing: mosquittoMissing }),
  async start() {
    const mqttCa = await certify('MQTT CA', { ca: true })
    const deviceCa = await certify('Device CA', { ca: true })
    const server = await certify('localhost', { issuer: mqttCa, dns: ['localhost'] })
    const acl = ['pattern readwrite %u/#', 'pattern read shared/#', 'pattern write shared/%u']
    const running = await startMosquitto({ server, deviceCa, acl })
    return {
      device: async (name) =>
        credentialFor(await certify(name, { issuer: deviceCa }), {
          host: 'localhost',
          port: running.port,
          trustAnchors: [mqttCa.certificate],
        }),
      close: () => running.close(),
    }
  },
}

export const brokers: readonly Broker[] = [lab, mosquitto]
