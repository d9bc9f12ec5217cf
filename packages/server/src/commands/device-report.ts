/** `certvend-server device list`, `export` and `audit`: reading, by the hundred thousand. */
import { type Command, InvalidArgumentError } from 'commander'
import {
  type AuditEvent,
  type Certificate,
  type Device,
  type DeviceState,
  deviceState,
  type Registry,
} from '../registry/registry.ts'
import { openChosenRegistry, type RegistryOptions } from '../registry-address.ts'
import { print, say, type Terminal } from '../terminal.ts'
import { deviceSerial, wholeNumber } from './arguments.ts'
import {
  deviceDocument,
  deviceLine,
  deviceLineHeading,
  deviceTable,
  deviceTableHeading,
  eventLine,
} from './device-text.ts'
import { withRegistry } from './registry.ts'

interface ListOptions extends RegistryOptions {
  readonly state?: DeviceState
  readonly after?: string
  readonly limit?: number
  readonly json?: true
}

interface AuditOptions extends RegistryOptions {
  readonly alarms?: true
  readonly after?: string
  readonly limit?: number
  readonly json?: true
}

const states: readonly string[] = ['disabled', 'waiting', 'expired', 'reserved', 'enrolled']

function state(text: string): DeviceState {
  if (states.includes(text)) return text as DeviceState
  throw new InvalidArgumentError(`not one of ${states.join(', ')}.`)
}

/** Devices on one page, and of their certificates so many at a time. */
const pageSize = 500
const lanes = 16

/** How many devices between two words of progress. */
const stride = 10_000

type Holding = readonly [device: Device, certificates: readonly Certificate[]]

/** Devices with their certificates, in the registry's order. */
async function* holdings(
  registry: Registry,
  { state: wanted, after: first = '', limit = Number.POSITIVE_INFINITY }: ListOptions,
  terminal: Terminal,
): AsyncGenerator<Holding> {
  const now = terminal.clock.now()
  let [after, left, seen] = [first, limit, 0]
  while (left > 0 && !terminal.signal.aborted) {
    const page = await registry.list({ after, limit: pageSize })
    const last = page.at(-1)
    if (!last) return
    after = last.deviceSerial
    const chosen = page
      .filter((device) => wanted === undefined || deviceState(device, now) === wanted)
      .slice(0, left)
    left -= chosen.length
    for (let start = 0; start < chosen.length; start += lanes)
      yield* await Promise.all(
        chosen
          .slice(start, start + lanes)
          .map(
            async (device) => [device, await registry.certificates(device.deviceSerial)] as const,
          ),
      )
    if (Math.floor((seen + page.length) / stride) > Math.floor(seen / stride))
      say(terminal, `${seen + page.length} devices read`)
    seen += page.length
  }
}

async function* auditEvents(
  registry: Registry,
  serial: string | undefined,
  { alarms, after: first, limit = Number.POSITIVE_INFINITY }: AuditOptions,
): AsyncGenerator<AuditEvent> {
  let [after, left] = [first, limit]
  while (left > 0) {
    const page = await registry.events({
      limit: pageSize,
      ...(serial !== undefined && { deviceSerial: serial }),
      ...(after !== undefined && { after }),
    })
    const last = page.at(-1)
    if (!last) return
    after = last.id
    const chosen = page.filter(({ name }) => !alarms || isAlarmName(name)).slice(0, left)
    left -= chosen.length
    yield* chosen
  }
}

const isAlarmName = (name: string): boolean =>
  name.endsWith('-conflict') || name === 'certificate-unknown'

export function addDeviceReportCommands(group: Command, terminal: Terminal): void {
  const using = async (options: RegistryOptions, work: (registry: Registry) => Promise<void>) => {
    const registry = await openChosenRegistry(options, terminal, false)
    try {
      await work(registry)
    } finally {
      await registry.close()
    }
  }
  const command = (name: string, description: string): Command =>
    withRegistry(group.command(name)).description(description)
  const paged = (made: Command, what: string): Command =>
    made
      .option('--after <cursor>', `begin after this ${what}`)
      .option('--limit <number>', 'at most so many', wholeNumber)

  paged(command('list', 'list devices; with --json one document per line'), 'serial')
    .option('--state <state>', `only those that are ${states.join(', ')}`, state)
    .option('--json', 'print JSON')
    .action((options: ListOptions) =>
      using(options, async (registry) => {
        if (!options.json) terminal.out(deviceLineHeading)
        const now = terminal.clock.now()
        for await (const [device, certificates] of holdings(registry, options, terminal))
          if (options.json) print(terminal, deviceDocument(device, certificates, now))
          else terminal.out(deviceLine(device, certificates, now))
      }),
    )

  paged(command('export', 'print all devices for a spreadsheet (CSV), without any token'), 'serial')
    .option('--state <state>', `only those that are ${states.join(', ')}`, state)
    .option('--json', 'print JSON, one document per line, with all certificates')
    .action((options: ListOptions) =>
      using(options, async (registry) => {
        if (!options.json) terminal.out(deviceTableHeading)
        const now = terminal.clock.now()
        for await (const [device, certificates] of holdings(registry, options, terminal))
          if (options.json) print(terminal, deviceDocument(device, certificates, now))
          else terminal.out(deviceTable(device, certificates, now))
      }),
    )

  paged(command('audit', 'what happened, oldest first; of one device, or of all'), 'event (its id)')
    .argument('[serial]', 'the device serial', deviceSerial)
    .option('--alarms', 'only what calls for a person')
    .option('--json', 'print JSON, one event per line')
    .action((serial: string | undefined, options: AuditOptions) =>
      using(options, async (registry) => {
        for await (const event of auditEvents(registry, serial, options))
          if (options.json) print(terminal, event)
          else terminal.out(`${eventLine(event, serial === undefined)}\n`)
      }),
    )
}
