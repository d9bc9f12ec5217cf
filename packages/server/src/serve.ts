/** The vending machine on embedded defaults, from the words of the command line to a clean stop. */
import { X509Certificate } from 'node:crypto'
import { join } from 'node:path'
import { day } from './clock.ts'
import type { IssuerName, IssuerOptions } from './commands/issuer.ts'
import { dataDirectory, prepareDataDirectory } from './data-directory.ts'
import { failure } from './failure.ts'
import { createHandler, type Handler } from './handler.ts'
import {
  followIdentity,
  type Identity,
  type IdentityFiles,
  readIdentity,
} from './identity-files.ts'
import { type Issuing, openIssuing, unusableKeys } from './issuing.ts'
import { createLegacyDoors, type LegacyDoors } from './legacy/doors.ts'
import { type LegacyRoute, refuseCollisions } from './legacy/routes.ts'
import { type Listener, listen } from './listen.ts'
import { jsonLog } from './log.ts'
import { createMetrics, createWatchDoor } from './metrics.ts'
import { readNamed } from './named-file.ts'
import { openChosenRegistry, type RegistryOptions } from './registry-address.ts'
import { tellSystemd } from './systemd.ts'
import { say, type Terminal } from './terminal.ts'
import { openServerChain } from './tls.ts'
import { createTokenJudge } from './tokens.ts'

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
  readonly watchListen: string
  /** Absent: {@link defaultWatchPort}, or none if that is taken. */
  readonly watchPort?: number
}

export const defaultWatchPort = 9464

/** Serves until `terminal.signal` aborts. @throws Failure */
export async function serve(options: ServeOptions, terminal: Terminal): Promise<void> {
  const { clock, signal } = terminal
  const directory = dataDirectory(options.dataDir, terminal.env)
  judgeLegacy(options)
  const files = givenFiles(options)
  const given = files && (await readIdentity(files))
  const mqttAnchors = options.mqttAnchors && (await readAnchors(options.mqttAnchors))
  await prepareDataDirectory(directory)
  const registry = await openChosenRegistry(options, terminal, 'silently')
  let listener: Listener | undefined
  let plain: Listener | undefined
  let watch: Listener | undefined
  let endFollowing: (() => void) | undefined
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
    const metrics = createMetrics(() => legacy.counts())
    const log = metrics.counting(jsonLog(terminal.out, clock))
    // One judge: the old URLs and ours share the threads that it may take.
    const judgeToken = createTokenJudge()
    const machine = { registry, issuer, clock, log, endpoint, judgeToken }
    const legacy = createLegacyDoors({ ...machine, routes: options.legacy }, createHandler(machine))
    plain = await openPlainDoor(legacy, options, terminal)
    const identity = given ?? chain!
    listener = await listen(legacy.handler, {
      tls: identity,
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
    metrics.serverCertificate(identity.cert)
    let shown: Identity = identity
    const show = (next: Identity) => {
      listener?.show(next)
      shown = next
      metrics.serverCertificate(next.cert)
      log({ event: 'certificate-shown', reason: 'the server certificate was replaced' })
    }
    const failed = ({ message: reason }: Error) =>
      log({ level: 'error', event: 'certificate-kept', operation: 'tls', reason })
    endFollowing = files
      ? followIdentity(files, identity, { changed: show, failed })
      : keepFresh(async () => {
          const next = await openServerChain(tlsDirectory, options.host, clock)
          if (next.cert !== shown.cert) show(next)
        }, failed)
    const isReady = () => registry.check().then(() => !signal.aborted)
    watch = await openWatchDoor(createWatchDoor(metrics, isReady), options, terminal)
    const url = `https://${host.includes(':') ? `[${host}]` : host}:${listener.port}`
    log({ event: 'listening', url, port: listener.port })
    say(terminal, `vending at ${url}, data in ${directory}`)
    if (chain) say(terminal, `devices pin ${chain.pinPath}`)
    if (watch) say(terminal, `metrics at http://${options.watchListen}:${watch.port}/metrics`)
    say(terminal, `devices are sent to mqtts://${endpoint.host}:${endpoint.port}`)
    await tellSystemd(terminal.env, `vending at ${url}`)
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve))
    await Promise.all([listener.close(), plain?.close()])
    await watch?.close(0)
    log({ event: 'stopped' })
  } finally {
    endFollowing?.()
    await Promise.all([watch?.close(0), plain?.close(0)])
    issuing?.close()
    await registry.close()
  }
}

/** The door for those who watch; where nobody asked for its port, another process may have it. */
async function openWatchDoor(
  handler: Handler,
  { watchListen: address, watchPort }: ServeOptions,
  terminal: Terminal,
): Promise<Listener | undefined> {
  const port = watchPort ?? defaultWatchPort
  try {
    return await listen(handler, { tls: 'none', address, port })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (watchPort !== undefined || code !== 'EADDRINUSE')
      throw failure(
        code === 'EADDRINUSE' ? 1 : 3,
        `cannot listen on ${address} port ${port}: ${code ?? message}`,
        'name another --watch-port or --watch-listen',
      )
    say(terminal, `warning: no metrics, as another process has port ${port}; name a --watch-port`)
    return undefined
  }
}

/** Calls `work` twice a day, which renews a certificate of our own long before its end. */
function keepFresh(work: () => Promise<void>, failed: (error: Error) => void): () => void {
  const timer = setInterval(() => void work().catch(failed), day / 2)
  timer.unref()
  return () => clearInterval(timer)
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

/** The files of the operator's own certificate, if there are any. @throws Failure */
function givenFiles(options: ServeOptions): IdentityFiles | undefined {
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
  return { cert: tlsCert, key: tlsKey }
}

/** The CAs in a PEM file, one PEM each. */
async function readAnchors(path: string): Promise<string[]> {
  const text = await readNamed(path)
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
