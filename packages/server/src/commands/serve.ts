/** `certvend-server serve`: the vending machine on embedded defaults. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Endpoint } from '@certvend/client/wire'
import type { Command } from 'commander'
import { day } from '../clock.ts'
import { dataDirectory, openRegistry, prepareDataDirectory } from '../data-directory.ts'
import { failure } from '../failure.ts'
import { createHandler } from '../handler.ts'
import { createLocalIssuer, openDeviceCa } from '../issuer/local.ts'
import { type Listener, listen } from '../listen.ts'
import { jsonLog } from '../log.ts'
import { say, type Terminal } from '../terminal.ts'
import { openServerChain } from '../tls.ts'
import { hostName, port, wholeNumber } from './arguments.ts'

interface ServeOptions {
  dataDir?: string
  host: string[]
  listen?: string
  port: number
  tlsCert?: string
  tlsKey?: string
  mqttHost?: string
  mqttPort: number
  mqttAlpn?: string
  mqttAnchors?: string
  certificateDays: number
}

const examples = `
On first use this makes, in the data directory, the CA that issues device certificates and a
server certificate under an intermediate CA of its own; tls/pin.pem is what devices pin.

  $ certvend-server serve --host vending.example.com

Behind a certificate of your own, for devices that connect to AWS IoT Core:

  $ certvend-server serve --tls-cert chain.pem --tls-key key.pem \\
      --mqtt-host abc-ats.iot.eu-west-1.amazonaws.com --mqtt-anchors AmazonRootCA1.pem

One JSON line per event goes to standard output; SIGTERM ends it cleanly.
`

export function addServeCommand(program: Command, terminal: Terminal): void {
  program
    .command('serve')
    .description('run the vending machine until it is told to stop')
    .option('--data-dir <directory>', 'where everything is kept (default: ./certvend-data)')
    .option(
      '--host <name>',
      'a name or address that devices reach this server by; may be repeated',
      (name: string, names: string[]) => [...names, hostName(name)],
      [],
    )
    .option('--listen <address>', 'address to listen on (default: every address)')
    .option('--port <port>', 'port to listen on; 0 takes a free one', port, 8443)
    .option('--tls-cert <file>', "the server's certificate chain, PEM, end entity first")
    .option('--tls-key <file>', 'its private key, PEM')
    .option(
      '--mqtt-host <name>',
      'MQTT server to hand to devices (default: the first --host)',
      hostName,
    )
    .option('--mqtt-port <port>', 'its port', port, 8883)
    .option('--mqtt-alpn <protocol>', 'ALPN protocol to ask for, such as x-amzn-mqtt-ca')
    .option('--mqtt-anchors <file>', 'the CAs that vouch for it, PEM (default: tls/root.pem)')
    .option('--certificate-days <days>', 'how long device certificates last', wholeNumber, 365)
    .addHelpText('after', examples)
    .action((options: ServeOptions) => serve(options, terminal))
}

async function serve(options: ServeOptions, terminal: Terminal): Promise<void> {
  const { clock, signal } = terminal
  const directory = dataDirectory(options.dataDir, terminal.env)
  const given = await readGivenIdentity(options)
  const mqttAnchors = options.mqttAnchors && (await readAnchors(options.mqttAnchors))
  await prepareDataDirectory(directory)
  const registry = await openRegistry(directory, true)
  let listener: Listener | undefined
  try {
    const ca = await openDeviceCa(directory, clock)
    const chain = given
      ? undefined
      : await openServerChain(join(directory, 'tls'), options.host, clock)
    const host = options.host[0] ?? 'localhost'
    const endpoint: Endpoint = {
      host: options.mqttHost ?? host,
      port: options.mqttPort,
      ...(options.mqttAlpn !== undefined && { alpn: options.mqttAlpn }),
      trustAnchors: mqttAnchors || [chain!.root.certificate],
    }
    const log = jsonLog(terminal.out, clock)
    const handler = createHandler({
      registry,
      issuer: createLocalIssuer(ca, { validityMs: options.certificateDays * day }),
      clock,
      log,
      endpoint,
    })
    listener = await listen(handler, {
      tls: given ?? chain!,
      port: options.port,
      ...(options.listen !== undefined && { address: options.listen }),
    }).catch((error: NodeJS.ErrnoException) => {
      const isTaken = error.code === 'EADDRINUSE'
      throw failure(
        isTaken ? 1 : 3,
        `cannot listen on port ${options.port}: ${error.code ?? error.message}`,
        isTaken
          ? 'another process listens there; stop it, or name another --port'
          : 'name another --port or --listen',
      )
    })
    const url = `https://${host.includes(':') ? `[${host}]` : host}:${listener.port}`
    log({ event: 'listening', url, port: listener.port })
    say(terminal, `vending at ${url}, data in ${directory}`)
    if (chain) say(terminal, `devices pin ${chain.pinPath}`)
    say(terminal, `devices are sent to mqtts://${endpoint.host}:${endpoint.port}`)
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve))
    await listener.close()
    log({ event: 'stopped' })
  } finally {
    await registry.close()
  }
}

async function readGivenIdentity(
  options: ServeOptions,
): Promise<{ cert: string; key: string } | undefined> {
  const { tlsCert, tlsKey } = options
  if (tlsCert === undefined && tlsKey === undefined) return undefined
  if (tlsCert === undefined || tlsKey === undefined)
    throw failure(2, '--tls-cert and --tls-key belong together', 'give both, or neither')
  if (options.mqttAnchors === undefined)
    throw failure(
      2,
      'with --tls-cert there is no CA here that could vouch for the MQTT server',
      'name its CAs: --mqtt-anchors FILE',
    )
  const cert = await readText(tlsCert)
  const key = await readText(tlsKey)
  let matches: boolean
  try {
    matches = new X509Certificate(cert).checkPrivateKey(createPrivateKey(key))
  } catch {
    throw failure(
      2,
      `${tlsCert} or ${tlsKey} is not PEM`,
      'both are PEM, the key without a password',
    )
  }
  if (!matches)
    throw failure(
      2,
      `the key in ${tlsKey} does not belong to the first certificate in ${tlsCert}`,
      'the end entity comes first in the chain',
    )
  return { cert, key }
}

/** The CAs in a PEM file, one PEM each. */
async function readAnchors(path: string): Promise<string[]> {
  const text = await readText(path)
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
  const anchors = blocks.map((block) => {
    try {
      return new X509Certificate(block)
    } catch {
      throw failure(2, `a certificate in ${path} cannot be read`, 'fetch the file again')
    }
  })
  if (anchors.length === 0)
    throw failure(2, `there is no certificate in ${path}`, 'a PEM file is needed')
  if (!anchors.every((anchor) => anchor.ca))
    throw failure(
      2,
      `a certificate in ${path} is not a CA`,
      "name the CA, not the server's own certificate",
    )
  return anchors.map((anchor) => anchor.toString())
}

async function readText(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    throw failure(
      2,
      `cannot read ${path}: ${(error as NodeJS.ErrnoException).code}`,
      'check the path',
    )
  }
}
