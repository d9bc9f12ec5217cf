/** A real mosquitto on loopback with mutual TLS, one process per broker; absent where not installed. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import net, { type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { Certified } from './pki.ts'

const program = ['mosquitto', '/usr/sbin/mosquitto'].find(
  (name) => spawnSync(name, ['-h']).error === undefined,
)

/** Why tests against mosquitto are skipped, or nothing. */
export const mosquittoMissing: string | undefined = program
  ? undefined
  : 'mosquitto is not installed'

export interface Mosquitto {
  readonly port: number
  /** Everything it has logged so far. */
  readonly log: string
  close(): Promise<void>
}

export interface MosquittoOptions {
  readonly server: Certified
  /** Whose client certificates it admits. */
  readonly deviceCa: Certified
  readonly tlsVersion?: 'tlsv1.2' | 'tlsv1.3'
  /** Whom `deviceCa` has revoked, PEM. */
  readonly crl?: string
  /** Lines of an access control list; `%u` is the certificate's common name. */
  readonly acl?: readonly string[]
}

/** Starts a broker that demands a client certificate and takes its common name as user name. */
export async function startMosquitto(options: MosquittoOptions): Promise<Mosquitto> {
  const directory = fs.mkdtempSync(path.join(tmpdir(), 'certvend-mosquitto-'))
  const file = (name: string, content: string): string => {
    fs.writeFileSync(path.join(directory, name), content)
    return path.join(directory, name)
  }
  const port = await freePort()
  const config = [
    ...(process.getuid?.() === 0 ? ['user root'] : []),
    'persistence false',
    'log_dest stderr',
    'set_tcp_nodelay true', // else each batch of acknowledgements waits for a delayed ACK
    `listener ${port} 127.0.0.1`,
    `cafile ${file('device-ca.pem', options.deviceCa.certificate)}`,
    `certfile ${file('server.pem', options.server.certificate)}`,
    `keyfile ${file('server-key.pem', options.server.privateKey)}`,
    'require_certificate true',
    'use_identity_as_username true',
    ...(options.tlsVersion ? [`tls_version ${options.tlsVersion}`] : []),
    ...(options.crl ? [`crlfile ${file('crl.pem', options.crl)}`] : []),
    ...(options.acl ? [`acl_file ${file('acl', `${options.acl.join('\n')}\n`)}`] : []),
  ]
  const broker = spawn(program as string, ['-c', file('mosquitto.conf', `${config.join('\n')}\n`)])
  let log = ''
  await running(broker, (text) => {
    log += text
    return log
  })
  return {
    port,
    get log() {
      return log
    },
    async close() {
      const gone = new Promise((resolve) => broker.once('exit', resolve))
      broker.kill()
      await gone
      fs.rmSync(directory, { recursive: true })
    },
  }
}

function running(broker: ChildProcess, heard: (text: string) => string): Promise<void> {
  return new Promise((resolve, reject) => {
    broker.once('exit', (code) => reject(new Error(`mosquitto exited (${code}): ${heard('')}`)))
    broker.stderr?.setEncoding('utf8').on('data', (text: string) => {
      if (/mosquitto version \S+ running/.test(heard(text))) resolve()
    })
  })
}

async function freePort(): Promise<number> {
  const server = net.createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}
