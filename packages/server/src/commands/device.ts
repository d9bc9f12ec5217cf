/** `certvend-server device …`: what an operator says about devices. */
import { isThingName, isToken } from '@certvend/client/wire'
import type { Command } from 'commander'
import { day, later } from '../clock.ts'
import { failure } from '../failure.ts'
import { readNamed } from '../named-file.ts'
import { isInForce, type Registry } from '../registry/registry.ts'
import { openChosenRegistry, type RegistryOptions } from '../registry-address.ts'
import { print, say, type Terminal } from '../terminal.ts'
import { generateToken, hashToken, type StoredToken } from '../tokens.ts'
import {
  attribute,
  deviceSerial,
  fleetName,
  policyName,
  thingName,
  wholeNumber,
} from './arguments.ts'
import { addBatch } from './device-batch.ts'
import { find, noSuchDevice } from './device-found.ts'
import { addDeviceImportCommand } from './device-import.ts'
import { addDeviceReportCommands } from './device-report.ts'
import { addDeviceRevokeCommand } from './device-revoke.ts'
import { describeDevice, deviceDocument } from './device-text.ts'
import { findFleet } from './fleet.ts'
import { addBooksOptions, type BooksOptions, chosenIssuer, tellAws } from './issuer.ts'
import { withRegistry } from './registry.ts'

interface CommonOptions extends BooksOptions, RegistryOptions {
  json?: true
}

interface AddOptions extends CommonOptions {
  thingName?: string
  policy?: string
  thingType?: string
  attribute: Readonly<Record<string, string>>
  tokenFile?: string
  fleet?: string
  count?: number
}

interface RearmOptions extends CommonOptions {
  keepToken?: true
  revoke?: true
  tokenFile?: string
}

const examples = `
Add a device and keep its token, which is shown this once, in a file of its own:

  $ (umask 077; certvend-server device add SN-0001 > SN-0001.token)

Add a device whose token was burned in by its maker:

  $ certvend-server device add SN-0002 --token-file burned-in.token

Add a batch for the factory, each with a token of its own, as CSV:

  $ (umask 077; certvend-server device add SN-01000 --count 500 > tokens.csv)

See who has not enrolled yet, what happened, and what calls for a person:

  $ certvend-server device list --state waiting
  $ certvend-server device audit SN-0001
  $ certvend-server device audit --alarms --json

End the certificates of a device that was stolen; its sessions end with them:

  $ certvend-server device revoke SN-0001

See what became of it, and let it enroll again after its disk was replaced:

  $ certvend-server device show SN-0001
  $ certvend-server device rearm SN-0001 --revoke > SN-0001.token

Add a device of a fleet, which needs no token of its own (see 'fleet --help'):

  $ certvend-server device add PUMP-0001 --fleet pumps

These commands work while 'serve' runs on the same data directory.
`

/** How long a re-armed claim waits for its key. */
const rearmMs = day

export function addDeviceCommands(program: Command, terminal: Terminal): void {
  const group = program
    .command('device')
    .description('add and import devices, look at them, re-arm and remove them')
    .addHelpText('after', examples)

  const command = (name: string, description: string): Command => {
    const made = withRegistry(group.command(name))
      .description(description)
      .option('--json', 'print JSON')
    return made.argument('<serial>', 'the device serial', deviceSerial)
  }
  const using =
    <Options extends CommonOptions>(
      work: (registry: Registry, serial: string, options: Options) => Promise<void>,
      create = false,
    ) =>
    async (serial: string, options: Options) => {
      const registry = await openChosenRegistry(options, terminal, create)
      try {
        await work(registry, serial, options)
      } finally {
        await registry.close()
      }
    }

  addDeviceImportCommand(group, terminal)
  addBooksOptions(command('add', 'add a device; prints its token, once'))
    .option(
      '--thing-name <name>',
      'its thing name and MQTT client id (default: the serial)',
      thingName,
    )
    .option('--policy <name>', 'policy to attach to its certificates', policyName)
    .option('--thing-type <name>', 'type of the thing', thingName)
    .option('--attribute <name=value>', 'attribute of the thing; may be repeated', attribute, {})
    .option('--token-file <file>', "take the token in this file instead; '-' is standard input")
    .option(
      '--count <number>',
      'add so many: the digits at the end of the serial count up',
      wholeNumber,
    )
    .option('--fleet <name>', 'its fleet, whose token will do: it gets none of its own', fleetName)
    .action(
      using<AddOptions>(
        (registry, serial, options) => add(registry, serial, options, terminal),
        true,
      ),
    )

  addDeviceReportCommands(group, terminal)

  command('show', 'show a device, its certificates and its latest events')
    .option('--history', 'with all of its events')
    .action(
      using<CommonOptions & { history?: true }>(async (registry, serial, options) => {
        const device = await find(registry, serial)
        const certificates = await registry.certificates(serial)
        const events = await latestEvents(registry, serial, options.history ? Infinity : 20)
        const now = terminal.clock.now()
        if (options.json) print(terminal, { ...deviceDocument(device, certificates, now), events })
        else terminal.out(describeDevice(device, certificates, events, now))
      }),
    )

  for (const [name, disabled] of [
    ['disable', true],
    ['enable', false],
  ] as const)
    addBooksOptions(
      command(
        name,
        disabled ? 'refuse a device until it is enabled' : 'accept a disabled device again',
      ),
    ).action(
      using<CommonOptions>(async (registry, serial, options) => {
        if (!(await registry.setDisabled(serial, disabled, terminal.clock.now())))
          throw noSuchDevice(serial)
        await tellAws(registry, serial, options, terminal)
        say(terminal, `${name}d ${serial}`)
        if (options.json) print(terminal, { deviceSerial: serial, disabled })
      }),
    )

  addBooksOptions(
    command('rearm', 'let a device enroll once more, within 24 hours; prints its new token, once'),
  )
    .option('--keep-token', 'keep the token it has (for tokens that are burned in)')
    .option('--token-file <file>', "take the token in this file instead; '-' is standard input")
    .option('--revoke', 'revoke its certificates now, not when the new one has connected')
    .action(
      using<RearmOptions>((registry, serial, options) =>
        rearm(registry, serial, options, terminal),
      ),
    )

  addDeviceRevokeCommand(group, terminal)

  addBooksOptions(command('remove', 'forget a device'))
    .option('--revoke', 'also revoke its certificates')
    .action(
      using<CommonOptions & { revoke?: true }>(async (registry, serial, options) => {
        const now = terminal.clock.now()
        const held = await registry.certificates(serial)
        await find(registry, serial)
        if (!options.revoke && held.some((certificate) => isInForce(certificate, now)))
          throw failure(
            3,
            `${serial} holds a certificate that is in force`,
            `to revoke it too: certvend-server device remove ${serial} --revoke`,
          )
        if (!(await registry.remove(serial, now))) throw noSuchDevice(serial)
        await tellAws(registry, serial, options, terminal)
        say(terminal, `removed ${serial}`)
        if (options.json) print(terminal, { deviceSerial: serial, removed: true })
      }),
    )
}

async function add(
  registry: Registry,
  serial: string,
  options: AddOptions,
  terminal: Terminal,
): Promise<void> {
  if (options.count !== undefined) return addMany(registry, serial, options, terminal)
  const name = options.thingName ?? serial
  if (!isThingName(name))
    throw failure(
      2,
      `${serial} cannot be a thing name, which has no dots`,
      `name one: certvend-server device add ${serial} --thing-name ${serial.replaceAll('.', '-')}`,
    )
  if (chosenIssuer(options, terminal) !== 'local' && name.includes(':'))
    throw failure(
      2,
      `${name} cannot be a thing and a policy in AWS IoT, which takes no colons in both`,
      `name one: certvend-server device add ${serial} --thing-name ${name.replaceAll(':', '-')}`,
    )
  const fleet = options.fleet === undefined ? undefined : await findFleet(registry, options.fleet)
  const isFleets = fleet !== undefined && options.tokenFile === undefined
  const { token, stored } = isFleets ? {} : await newToken(options.tokenFile, terminal)
  const outcome = await registry.add(
    {
      deviceSerial: serial,
      thingName: name,
      ...(options.policy !== undefined && { policyName: options.policy }),
      ...(options.thingType !== undefined && { thingType: options.thingType }),
      ...(Object.keys(options.attribute).length > 0 && { attributes: options.attribute }),
      ...(fleet && { fleet: fleet.name }),
    },
    stored,
    terminal.clock.now(),
  )
  if (outcome === 'serial-taken')
    throw failure(
      3,
      `there is a device ${serial} already`,
      `see it: certvend-server device show ${serial}; a new token: certvend-server device rearm ${serial}`,
    )
  if (outcome === 'thing-name-taken')
    throw failure(
      3,
      `another device has the thing name ${name}`,
      'two devices of one name would take over each other; choose another --thing-name',
    )
  handOver(terminal, { deviceSerial: serial, thingName: name }, token, stored, options)
  say(terminal, `added ${serial}${token ? '; its token is shown only now' : ''}`)
}

async function addMany(
  registry: Registry,
  serial: string,
  options: AddOptions,
  terminal: Terminal,
): Promise<void> {
  const { count = 1, policy, thingType, attribute: attributes } = options
  const own = ['thingName', 'tokenFile', 'fleet'] as const
  if (own.some((name) => options[name] !== undefined))
    throw failure(
      2,
      '--count excludes --thing-name, --token-file and --fleet',
      'each gets its serial as thing name and a token of its own',
    )
  const common = {
    ...(policy !== undefined && { policyName: policy }),
    ...(thingType !== undefined && { thingType }),
    ...(Object.keys(attributes).length > 0 && { attributes }),
  }
  await addBatch(registry, serial, count, common, options.json === true, terminal)
}

async function rearm(
  registry: Registry,
  serial: string,
  options: RearmOptions,
  terminal: Terminal,
): Promise<void> {
  if (options.keepToken && options.tokenFile !== undefined)
    throw failure(2, '--keep-token and --token-file exclude each other', 'give one of them')
  const { claim, fleet } = await find(registry, serial)
  // A device that lives on its fleet's token is re-armed for that token.
  const isFleets = fleet !== undefined && !claim.token && options.tokenFile === undefined
  if (options.keepToken && !claim.token && !isFleets)
    throw failure(2, `${serial} has no token to keep`, 'leave --keep-token out')
  const now = terminal.clock.now()
  const openUntil = later(now, rearmMs)
  const { token, stored } =
    options.keepToken || isFleets
      ? { stored: 'keep' as const }
      : await newToken(options.tokenFile, terminal)
  const revoke = options.revoke === true
  if (!(await registry.rearm(serial, { token: stored, openUntil, revoke }, now)))
    throw noSuchDevice(serial)
  if (stored === 'keep') {
    const whose = isFleets ? `the token of ${fleet}` : 'the old token'
    say(terminal, `warning: whoever knows ${whose} can use it for 24 hours`)
    if (options.json) print(terminal, { deviceSerial: serial, openUntil })
  } else handOver(terminal, { deviceSerial: serial, openUntil }, token, stored, options)
  say(terminal, `re-armed ${serial} for one key until ${openUntil.toISOString()}`)
  if (revoke) await tellAws(registry, serial, options, terminal)
}

/** The token that was generated, or none if it came from a file; and what to store of it. */
async function newToken(
  tokenFile: string | undefined,
  terminal: Terminal,
): Promise<{ token?: string; stored: StoredToken }> {
  if (tokenFile === undefined) {
    const token = generateToken()
    return { token, stored: await hashToken(token, 'generated') }
  }
  const text = tokenFile === '-' ? await terminal.readInput() : await readNamed(tokenFile)
  const token = text.trim()
  if (!isToken(token))
    throw failure(
      2,
      `${tokenFile === '-' ? 'standard input' : tokenFile} does not hold a token`,
      'a token is one line of 8 to 512 letters, digits or any of - . _ ~ + / with = at the end',
    )
  return { stored: await hashToken(token, 'imported') }
}

/** Shows a new token, and says of an imported one that it is weak. */
function handOver(
  terminal: Terminal,
  document: Record<string, unknown>,
  token: string | undefined,
  stored: StoredToken | undefined,
  options: CommonOptions,
): void {
  const weak = stored?.kind === 'scrypt'
  const shown = token ? { token } : { ...(stored && { weak }) }
  if (options.json) print(terminal, { ...document, ...shown })
  else if (token) terminal.out(`${token}\n`)
  if (weak) say(terminal, 'warning: the token is weak; it could be found by trying')
}

async function latestEvents(registry: Registry, serial: string, count: number) {
  let latest: Awaited<ReturnType<Registry['events']>> = []
  for (let after: string | undefined; ; ) {
    const page = await registry.events({
      deviceSerial: serial,
      ...(after !== undefined && { after }),
      limit: 500,
    })
    const last = page.at(-1)
    if (!last) return latest
    after = last.id
    latest = [...latest, ...page].slice(-count)
  }
}
