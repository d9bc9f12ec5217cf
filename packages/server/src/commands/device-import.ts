/** `certvend-server device import`: takes over the table of an old vending machine. */
import { type Command, Option } from 'commander'
import { second } from '../clock.ts'
import { failure, isFailure } from '../failure.ts'
import { type ImportCounts, importRows, type NotTaken } from '../import/import.ts'
import { readRows } from '../import/source.ts'
import { isUnreadable } from '../import/table.ts'
import type { Registry } from '../registry/registry.ts'
import { chosenAddress, openChosenRegistry, type RegistryOptions } from '../registry-address.ts'
import { print, say, type Terminal } from '../terminal.ts'
import { policyName, thingNameFormat } from './arguments.ts'
import { withRegistry } from './registry.ts'

interface ImportCommandOptions extends RegistryOptions {
  json?: true
  dryRun?: true
  policy?: string
  thingNameFormat: string
}

const examples = `
Takes the tables of old vending machines, told apart by their columns: deviceInfo (serialNumber,
deviceToken, certinfo), DeviceProvisioningInfoDB of IoT Atlas (device_uid, device_token, is_enabled,
is_registered) and product (seriaNum, accessToken, applyState, thingName, policyName). As JSON, CSV
or SQL dump:

  $ aws dynamodb scan --table-name deviceInfo > devices.json
  $ mysqldump cvm product > devices.sql

See first what would become of every row:

  $ certvend-server device import devices.json --dry-run

A device that had its certificate already is enrolled: it gets none until it is re-armed. A file that
cannot be read to its end is not imported at all. Rows that are not taken are listed with the reason,
and the exit code is 3; mend them and import the file again: what is there already is passed over.
`

export function addDeviceImportCommand(devices: Command, terminal: Terminal): void {
  withRegistry(devices.command('import'))
    .description('add the devices of an old vending machine, from an export of its table')
    .argument('<file>', 'JSON of the AWS CLI, CSV with a heading, or a dump of mysqldump')
    .option('--dry-run', 'judge every row and change nothing')
    .option('--policy <name>', 'policy for rows that name none', policyName)
    .addOption(
      new Option('--thing-name-format <text>', 'what IoT Atlas called a thing that has no name yet')
        .default('thing_%DEVICE_UID%')
        .argParser(thingNameFormat),
    )
    .option('--json', 'print one JSON document per row that was not taken, and one at the end')
    .addHelpText('after', examples)
    .action(async (file: string, options: ImportCommandOptions) => {
      const total = await reading(file, () => countRows(file))
      if (total === 0) throw failure(2, `there are no rows in ${file}`, 'export the table again')
      const registry = await openFor(options, terminal)
      try {
        const counts = await reading(file, () => run(file, total, registry, options, terminal))
        conclude(counts, total, options, terminal)
      } finally {
        await registry?.close()
      }
    })
}

/** A dry run makes no registry where there is none. */
async function openFor(
  options: ImportCommandOptions,
  terminal: Terminal,
): Promise<Registry | undefined> {
  const isFile = chosenAddress(options, terminal.env).kind === 'file'
  try {
    return await openChosenRegistry(options, terminal, !options.dryRun)
  } catch (error) {
    if (options.dryRun && isFile && isFailure(error) && error.exitCode === 2) return undefined
    throw error
  }
}

/** Reads the file to its end before anything is changed. */
async function countRows(file: string): Promise<number> {
  let rows = 0
  for await (const row of readRows(file)) rows = row.number
  return rows
}

async function run(
  file: string,
  total: number,
  registry: Registry | undefined,
  options: ImportCommandOptions,
  terminal: Terminal,
): Promise<ImportCounts> {
  const { clock, signal } = terminal
  let saidAt = clock.now().getTime()
  return importRows(readRows(file), registry, {
    rules: {
      thingNameFormat: options.thingNameFormat,
      ...(options.policy !== undefined && { policyName: options.policy }),
    },
    clock,
    signal,
    dryRun: options.dryRun === true,
    onNotTaken: (refused) =>
      options.json ? print(terminal, refused) : terminal.out(describe(refused)),
    onProgress(counts) {
      const now = clock.now().getTime()
      if (now - saidAt < 5 * second || counts.rows === total) return
      saidAt = now
      say(terminal, `${counts.rows} of ${total} rows, ${counts.added} added`)
    },
  })
}

const describe = ({ row, deviceSerial = '-', reason }: NotTaken): string =>
  `${`row ${row}`.padEnd(12)}  ${deviceSerial.padEnd(24)}  ${reason}\n`

function conclude(
  counts: ImportCounts,
  total: number,
  options: ImportCommandOptions,
  terminal: Terminal,
): void {
  const { added, unchanged, notTaken, spent, disabled, weak } = counts
  if (options.json) print(terminal, { ...counts, dryRun: options.dryRun === true })
  const kinds = [
    [spent, 'enrolled already'],
    [disabled, 'disabled'],
    [weak, 'with a weak token'],
  ] as const
  const some = kinds.filter(([count]) => count > 0).map(([count, kind]) => `${count} ${kind}`)
  const verb = options.dryRun ? 'would add' : 'added'
  say(terminal, `${verb} ${added} devices${some.length > 0 ? ` (${some.join(', ')})` : ''}`)
  if (unchanged > 0) say(terminal, `${unchanged} are in the registry already`)
  if (weak > 0) say(terminal, 'warning: a weak token could be found by trying; prefer new firmware')
  if (counts.rows < total)
    throw failure(
      1,
      `interrupted after ${counts.rows} of ${total} rows`,
      'import the file again; what is there already is passed over',
    )
  if (notTaken > 0)
    throw failure(
      3,
      `${notTaken} of ${total} rows ${options.dryRun ? 'would not be' : 'were not'} taken`,
      'mend them and import the file again; what is there already is passed over',
    )
}

/** Says of a file that cannot be read what is wrong with it. */
async function reading<T>(file: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (isUnreadable(error)) throw failure(2, `${file}: ${error.message}`, error.hint)
    const { code, syscall } = error as NodeJS.ErrnoException
    if (syscall === 'open' || syscall === 'read')
      throw failure(2, `cannot read ${file}: ${code}`, 'check the path')
    throw error
  }
}
