/**
 * The realm of two hundred lives: each boot is a process, the vending server is HTTPS behind a pin,
 * the door is MQTT with mutual TLS; a kill is SIGKILL.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import type { TLSSocket } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { connack, listen, onPackets } from '../hostile-server.ts'
import { certify } from '../pki.ts'
import { makeWorkspace } from '../prove/whole.ts'
import type { Ending } from './device.ts'
import type { Act, Boot } from './happenings.ts'
import type { Realm, Scene } from './life.ts'
import type { Order } from './living.ts'
import { claim, mostWaits } from './memory.ts'
import type { Instant } from './witness.ts'

const here = path.dirname(fileURLToPath(import.meta.url))
/** Compiled, wherever this file runs from. */
const program = here.endsWith(path.join('dist', 'lives'))
  ? path.join(here, 'living.js')
  : path.join(here, '..', 'dist', 'lives', 'living.js')

/** For one exchange: long enough for a loaded machine, short enough to wait for when a server stalls. */
const deadlineMs = 2000

export interface ProcessRealm extends Realm {
  close(): Promise<void>
}

/** One boot in progress. */
interface Running extends Scene {
  readonly child: ChildProcess
  readonly acts: Act[]
  readonly kill: Boot['kill']
  readonly instant: () => Instant
  unanswered: number
  wrong?: Error
}

export async function createProcessRealm(): Promise<ProcessRealm> {
  const workspace = makeWorkspace()
  const [vendingCa, mqttCa] = await Promise.all([
    certify('Vending CA', { ca: true }),
    certify('MQTT CA', { ca: true }),
  ])
  const [vending, mqtt] = await Promise.all([
    certify('vending', { issuer: vendingCa, dns: ['localhost'] }),
    certify('mqtt', { issuer: mqttCa, dns: ['localhost'] }),
  ])
  let running: Running | undefined

  /** What goes wrong while a device is served is told where its boot ends. */
  const guard = (running: Running, action: () => void): void => {
    try {
      action()
    } catch (error) {
      running.wrong = error as Error
      running.child.kill('SIGKILL')
    }
  }

  const server = https.createServer(
    { cert: vending.certificate, key: vending.privateKey },
    async (incoming, outgoing) => {
      const { csr } = JSON.parse(await text(incoming)) as { csr: string }
      const now = running
      if (!now) return void incoming.destroy()
      guard(now, () => {
        const { world, witness, child, kill, instant } = now
        const act = now.acts.shift() ?? { do: 'answer', dress: 'plain' }
        const at = instant()
        witness.asked(csr, act, at)
        const { answer, bond } = world.ask(csr, act, at.now)
        if (kill?.at === 'unanswered' && kill.number === ++now.unanswered) {
          child.kill('SIGKILL')
          return
        }
        if ('nothing' in answer) {
          if (answer.nothing === 'lost') incoming.destroy()
          return
        }
        const { status, headers, body } = answer.response
        outgoing.writeHead(status, { ...headers, 'content-length': body.length })
        if (answer.half) outgoing.write(body.subarray(0, body.length / 2), () => incoming.destroy())
        else {
          witness.answered(bond, at)
          outgoing.end(body)
        }
      })
    },
  )
  server.on('tlsClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')

  const broker = await listen(
    mqtt,
    [],
    (socket) => {
      const peer = (socket as TLSSocket).getPeerX509Certificate()
      const certificateId = peer?.fingerprint256.replaceAll(':', '').toLowerCase() ?? ''
      onPackets(socket, (packet) => {
        const now = running
        if (!now || packet[0] !== 0x10) return
        guard(now, () => {
          const admitted = now.world.admits(certificateId)
          now.witness.tried(certificateId, admitted)
          if (admitted) socket.write(connack())
          else socket.destroy()
        })
      })
    },
    // As IoT Core: any certificate is taken in the handshake, and judged before CONNACK.
    { tls: { requestCert: true, rejectUnauthorized: false } },
  )

  return {
    workspace,
    endpoint: { host: 'localhost', port: broker.port, trustAnchors: [mqttCa.certificate] },
    async close() {
      await broker.close()
      server.closeAllConnections()
      server.close()
      fs.rmSync(workspace, { recursive: true })
    },
    async boot({ kill, acts, again, clockless }, scene) {
      const clockFile = path.join(path.dirname(path.dirname(scene.directory)), 'clock')
      const order: Order = {
        directory: scene.directory,
        url: `https://localhost:${(server.address() as AddressInfo).port}`,
        pins: vendingCa.certificate,
        deviceSerial: claim.deviceSerial,
        token: claim.token,
        again,
        clockless,
        now: scene.now,
        clockFile,
        mostWaits,
        deadlineMs,
        ...(kill ? { kill } : {}),
      }
      fs.rmSync(clockFile, { force: true })
      const child = spawn(process.execPath, [program], {
        stdio: ['pipe', 'pipe', 'pipe'],
        env: { PATH: process.env.PATH },
      })
      const instant = (): Instant =>
        fs.existsSync(clockFile)
          ? (JSON.parse(fs.readFileSync(clockFile, 'utf8')) as Instant)
          : { now: scene.now, waits: 0 }
      const mine: Running = { ...scene, child, acts: [...acts], kill, instant, unanswered: 0 }
      running = mine
      child.stdin.on('error', () => {}) // killed before it read
      child.stdin.end(JSON.stringify(order))
      const [said, errors, [code, signal]] = await Promise.all([
        text(child.stdout),
        text(child.stderr),
        once(child, 'close') as Promise<[number | null, string | null]>,
      ])
      running = undefined
      if (mine.wrong) throw mine.wrong
      if (signal === 'SIGKILL') return { ending: { as: 'killed' }, at: instant() }
      if (code !== 0) throw new Error(`the device ended with ${code}: ${errors}`)
      return { ending: JSON.parse(said) as Ending, at: instant() }
    },
  }
}
