/** The vending machine on embedded defaults, from the words of the command line to a clean stop. */
import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { IssuerName, IssuerOptions } from './commands/issuer.ts'
import { dataDirectory, prepareDataDirectory } from './data-directory.ts'
import { failure } from './failure.ts'
import { createHandler } from './handler.ts'
import { type Issuing, openIssuing, unusableKeys } from './issuing.ts'
import { createLegacyDoors, type LegacyDoors } from './legacy/doors.ts'
import { type LegacyRoute, refuseCollisions } from './legacy/routes.ts'
import { type Listener, listen } from './listen.ts'
import { jsonLog } from './log.ts'
import { openChosenRegistry, type RegistryOptions } from './registry-address.ts'
import { say, type Terminal } from './terminal.ts'
import { openServerChain } from './tls.ts'

/** What `certvend-server serve` was told; see its `--help`. */
export interface ServeOptions extends Omit<IssuerOptions, 'issuer' | 'dataDir'>, RegistryOptions {
  readonly issuer: IssuerName
  readonly host: readonly string[]
  readonly listen?: string
  readonly port: number
  readonly tlsCert?: string
  readonly tlsKey?: string
  readonly mqttHost?: string
  readonly mqttPort: number
  readonly mqttAlpn?: string
  readonly mqttAnchors?: string
  readonly certificateDays: number
  readonly legacy: readonly LegacyRoute[]
  readonly legacyHttpListen: string
  readonly legacyHttpPort: number
}

/** Serves until `terminal.signal` aborts. @throws Failure */
export async function serve(options: ServeOptions, terminal: Terminal): Promise<void> {
  const { clock, signal } = terminal
  const directory = dataDirectory(options.dataDir, terminal.env)
  judgeLegacy(options)
  const given = await readGivenIdentity(options)
  const mqttAnchors = options.mqttAnchors && (await readAnchors(options.mqttAnchors))
  await prepareDataDirectory(directory)
  const registry = await openChosenRegistry(options, terminal, true)
  let listener: Listener | undefined
  let plain: Listener | undefined
  let issuing: Issuing | undefined
  try {
    const tlsDirectory = join(directory, 'tls')
    const chain = given
      ? undefined
      : await openServerChain(tlsDirectory, options.host, clock).catch((error: Error) => {
          throw unusableKeys(directory, error)
        })
    issuing = await openIssuing(
      options,
      {
        directory,
        ...(mqttAnchors && { mqttAnchors }),
        ...(chain && { ownRoot: chain.root.certificate }),
      },
      terminal,
    )
    const host = options.host[0] ?? 'localhost'
    const { issuer, endpoint } = issuing
    const log = jsonLog(terminal.out, clock)
    const machine = { registry, issuer, clock, log, endpoint }
    const legacy = createLegacyDoors({ ...machine, routes: options.legacy }, createHandler(machine))
    plain = await openPlainDoor(legacy, options, terminal)
    listener = await listen(legacy.handler, {
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
    await Promise.all([listener.close(), plain?.close()])
    log({ event: 'stopped' })
  } finally {
    await plain?.close(0)
    issuing?.close()
    await registry.close()
  }
}

function judgeLegacy({ legacy }: ServeOptions): void {
  try {
    refuseCollisions(legacy)
  } catch (error) {
    throw failure(
      2,
      (error as Error).message,
      'such as --legacy awslabs-2018=/LATEST --legacy awslabs-2020=/Prod',
    )
  }
}

async function openPlainDoor(
  legacy: LegacyDoors,
  { legacyHttpListen: address, legacyHttpPort: port }: ServeOptions,
  terminal: Terminal,
): Promise<Listener | undefined> {
  const plain = await legacy.openPlain({ address, port }).catch((error: NodeJS.ErrnoException) => {
    throw failure(
      error.code === 'EADDRINUSE' ? 1 : 3,
      `cannot listen on ${address} port ${port}: ${error.code ?? error.message}`,
      'name another --legacy-http-port or --legacy-http-listen',
    )
  })
  if (plain) {
    say(terminal, `express-2017 at http://${address}:${plain.port}, without TLS`)
    if (!isLoopback(address))
      say(terminal, 'warning: whoever is on that network reads private keys and forges answers')
  }
  return plain
}

const isLoopback = (address: string): boolean =>
  address === 'localhost' || address === '::1' || /^127\.\d+\.\d+\.\d+$/.test(address)

async function readGivenIdentity(
  options: ServeOptions,
): Promise<{ cert: string; key: string } | undefined> {
  const { tlsCert, tlsKey } = options
  if (tlsCert === undefined && tlsKey === undefined) return undefined
  if (tlsCert === undefined || tlsKey === undefined)
    throw failure(2, '--tls-cert and --tls-key belong together', 'give both, or neither')
  if (options.mqttAnchors === undefined && options.issuer === 'local')
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
