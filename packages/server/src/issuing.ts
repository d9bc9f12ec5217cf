/** Who makes certificates for `serve`, and where devices then connect. */
import type { Endpoint } from '@certvend/client/wire'
import { day } from './clock.ts'
import { openIssuer } from './commands/issuer.ts'
import { failure, isFailure } from './failure.ts'
import type { Issuer } from './issuer/issuer.ts'
import { createLocalIssuer, openDeviceCa } from './issuer/local.ts'
import type { ServeOptions } from './serve.ts'
import type { Terminal } from './terminal.ts'

export interface Issuing {
  readonly issuer: Issuer
  readonly endpoint: Endpoint
  close(): void
}

export interface Surroundings {
  /** The data directory. */
  readonly directory: string
  /** What `--mqtt-anchors` named. */
  readonly mqttAnchors?: readonly string[]
  /** Vouches for an MQTT server beside this one. */
  readonly ownRoot?: string
}

/** @throws Failure if the CA cannot be used, or AWS does not answer */
export const openIssuing = (
  options: ServeOptions,
  surroundings: Surroundings,
  terminal: Terminal,
): Promise<Issuing> =>
  options.issuer === 'local'
    ? local(options, surroundings, terminal)
    : aws({ ...options, issuer: options.issuer }, surroundings, terminal)

async function local(
  options: ServeOptions,
  { directory, mqttAnchors, ownRoot }: Surroundings,
  terminal: Terminal,
): Promise<Issuing> {
  const validityMs = options.certificateDays * day
  const issuer = await openDeviceCa(directory, terminal.clock)
    .then((ca) => createLocalIssuer(ca, { validityMs }))
    .catch((error: Error) => {
      throw unusableKeys(directory, error)
    })
  const trustAnchors = mqttAnchors ?? (ownRoot === undefined ? [] : [ownRoot])
  return {
    issuer,
    endpoint: {
      host: options.mqttHost ?? options.host[0] ?? 'localhost',
      port: options.mqttPort,
      ...(options.mqttAlpn !== undefined && { alpn: options.mqttAlpn }),
      trustAnchors: [...trustAnchors],
    },
    close: () => undefined,
  }
}

export const unusableKeys = (directory: string, error: Error) =>
  failure(
    3,
    `cannot use the CA keys in ${directory}: ${error.message}`,
    'restore them from a backup; devices trust these CAs and would not know new ones',
  )

async function aws(
  options: ServeOptions & { readonly issuer: Exclude<ServeOptions['issuer'], 'local'> },
  { directory, mqttAnchors }: Surroundings,
  terminal: Terminal,
): Promise<Issuing> {
  const { mqttAnchors: _, ...rest } = options
  const settings = { ...rest, ...(mqttAnchors && { mqttAnchors }) }
  const opened = await openIssuer(settings, directory, terminal).catch((error: Error) => {
    throw isFailure(error)
      ? error
      : failure(3, `cannot open the CA: ${error.message}`, 'see that the role may read and use it')
  })
  try {
    // Asked for now: what is wrong with region, credentials or network shows at the start.
    const told = await opened.endpoint()
    const endpoint = options.mqttHost === undefined ? told : { ...told, host: options.mqttHost }
    return { issuer: opened.issuer, endpoint, close: opened.close }
  } catch (error) {
    opened.close()
    throw failure(
      1,
      `AWS IoT does not answer: ${(error as Error).message}`,
      'see the region (--aws-region), the credentials, and the way out to AWS',
    )
  }
}
