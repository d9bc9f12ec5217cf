/** Which issuer, on the command line: the same words for every command that AWS IoT must hear of. */
import { join } from 'node:path'
import { type Command, InvalidArgumentError } from 'commander'
import { restoreDevice, withdrawRefused } from '../activation.ts'
import { day, second } from '../clock.ts'
import { failure } from '../failure.ts'
import type { AwsIssuer, AwsIssuerName } from '../issuer/open-aws.ts'
import { readNamed } from '../named-file.ts'
import type { Registry } from '../registry/registry.ts'
import { say, type Terminal } from '../terminal.ts'
import { policyName, thingName } from './arguments.ts'

export type IssuerName = 'local' | AwsIssuerName
const names: readonly string[] = ['local', 'aws-iot', 'aws-iot-own-ca', 'aws-iot-jitr']

/** Of commands that only tell AWS IoT what became of certificates. */
export interface BooksOptions {
  readonly issuer?: IssuerName
  readonly awsRegion?: string
  readonly iotPolicy?: string
  readonly thingGroup?: string
}

/** Of commands that issue. */
export interface IssuerOptions extends BooksOptions {
  readonly caKey?: string
  readonly caCertificate?: string
  /** Commander's word for `--no-ca-registered`. */
  readonly caRegistered?: boolean
  readonly roleAlias?: string
  readonly quotaShare?: number
}

function issuerName(text: string): IssuerName {
  if (names.includes(text)) return text as IssuerName
  throw new InvalidArgumentError(`not one of ${names.join(', ')}.`)
}

function share(text: string): number {
  const value = Number(text)
  if (value > 0 && value <= 1) return value
  throw new InvalidArgumentError('not a number above 0 and up to 1.')
}

function region(text: string): string {
  if (/^[a-z]{2}(-[a-z]+)+-\d$/.test(text)) return text
  throw new InvalidArgumentError('not an AWS region, such as eu-west-1.')
}

const issuerHelp = 'who makes certificates: local, aws-iot, aws-iot-own-ca, aws-iot-jitr'

export const addBooksOptions = (command: Command): Command =>
  command
    .option('--issuer <name>', `${issuerHelp} (default: $CERTVEND_ISSUER, else local)`, issuerName)
    .option('--aws-region <region>', "AWS region (default: the SDK's, as $AWS_REGION)", region)

export const addIssuerOptions = (command: Command): Command =>
  addBooksOptions(command)
    .option('--ca-key <file or ARN>', 'own CA: a file, a secret, or a KMS key, by ARN')
    .option('--ca-certificate <file>', 'own CA with a KMS key: its certificate, PEM')
    .option('--no-ca-registered', 'own CA: it is not registered with the AWS account')
    .option(
      '--iot-policy <name>',
      'policy that devices share (default: certvend-device)',
      policyName,
    )
    .option('--thing-group <name>', 'thing group that devices join', thingName)
    .option('--role-alias <name>', 'role alias that a policy made here lets devices use', thingName)
    .option('--quota-share <part>', "part of the account's quotas to use, 0 to 1", share)

/** What was chosen. @throws Failure if the environment names none that there is */
export function chosenIssuer({ issuer }: BooksOptions, terminal: Terminal): IssuerName {
  const said = issuer ?? (terminal.env.CERTVEND_ISSUER || 'local')
  if (names.includes(said)) return said as IssuerName
  throw failure(2, '$CERTVEND_ISSUER names no issuer', `one of ${names.join(', ')}`)
}

const books = (options: BooksOptions, terminal: Terminal) => ({
  clock: terminal.clock,
  ...(options.awsRegion !== undefined && { region: options.awsRegion }),
  ...(options.iotPolicy !== undefined && { policyName: options.iotPolicy }),
  ...(options.thingGroup !== undefined && { thingGroup: options.thingGroup }),
})

/** The issuer for a command that makes certificates. @throws Failure */
export async function openIssuer(
  options: IssuerOptions & {
    readonly issuer: AwsIssuerName
    readonly certificateDays: number
    readonly mqttPort: number
    readonly mqttAlpn?: string
    readonly mqttAnchors?: readonly string[]
  },
  directory: string,
  terminal: Terminal,
): Promise<AwsIssuer> {
  const { openAwsIssuer } = await import('../issuer/open-aws.ts')
  const { caCertificate } = options
  return openAwsIssuer({
    ...books(options, terminal),
    issuer: options.issuer,
    caKey: options.caKey ?? join(directory, 'device-ca.key.pem'),
    ...(caCertificate !== undefined && { caCertificate: () => readNamed(caCertificate) }),
    registration: options.caRegistered === false ? 'without-ca' : 'registered',
    validityMs: options.certificateDays * day,
    ...(options.roleAlias !== undefined && { roleAlias: options.roleAlias }),
    ...(options.quotaShare !== undefined && { quotaShare: options.quotaShare }),
    port: options.mqttPort,
    ...(options.mqttAlpn !== undefined && { alpn: options.mqttAlpn }),
    ...(options.mqttAnchors && { trustAnchors: options.mqttAnchors }),
  })
}

/** AWS IoT's books, for a command that makes no certificates; whoever signs, they are kept alike. */
export async function openBooks(
  options: BooksOptions,
  terminal: Terminal,
  quotaShare = 1,
): Promise<AwsIssuer> {
  const { openAwsIssuer } = await import('../issuer/open-aws.ts')
  return openAwsIssuer({ ...books(options, terminal), issuer: 'aws-iot', quotaShare })
}

/**
 * Makes AWS IoT agree with what the registry now says of one device, if devices connect there.
 *
 * @throws Failure that says to repeat the command: it is safe to
 */
export async function tellAws(
  registry: Registry,
  deviceSerial: string,
  options: BooksOptions,
  terminal: Terminal,
): Promise<void> {
  if (chosenIssuer(options, terminal) === 'local') return
  const { issuer, close } = await openBooks(options, terminal)
  const signal = AbortSignal.any([terminal.signal, AbortSignal.timeout(60 * second)])
  try {
    const withdrawn = await withdrawRefused({ registry, issuer }, deviceSerial, { signal })
    const restored = await restoreDevice({ registry, issuer }, deviceSerial, { signal })
    say(terminal, `AWS IoT: ${withdrawn} withdrawn, ${restored} in force`)
  } catch (error) {
    throw failure(
      1,
      `the registry has it, AWS IoT does not yet: ${(error as Error).message}`,
      'repeat the command, or let the sweep do it: certvend-server sweep',
    )
  } finally {
    close()
  }
}
