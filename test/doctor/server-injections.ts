/** Faults of what is at the other end: proxies, portals, the vending machine, the broker. */
import fs from 'node:fs'
import { connect } from '@certvend/client'
import type { LabOptions } from '@certvend/server/lab'
import { expect, onTestFinished } from 'vitest'
import { startHttpProxy } from '../http-proxy.ts'
import type { FaultName } from './faults.ts'
import type { Injection } from './injection.ts'
import type { machineInjections } from './machine-injections.ts'
import type { networkInjections } from './networks.ts'
import { credentialOf, redirect, type Scene } from './scene.ts'
import {
  aYear,
  brokerIdentity,
  closesOnPublish,
  deafPort,
  listen,
  plainMosquitto,
  redirects,
} from './servers.ts'

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

type ServerFault = Exclude<
  FaultName,
  keyof typeof machineInjections | keyof typeof networkInjections
>

export const serverInjections: Readonly<Record<ServerFault, Injection>> = {
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
    lab: {
      intercept: async ({ url }) =>
        new URL(url).pathname === '/getcert'
          ? json('"Access Deny!"')
          : json('{"message":"Missing Authentication Token"}', { status: 403 }),
    },
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
}
