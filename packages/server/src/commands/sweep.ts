/** `certvend-server sweep`: makes AWS IoT agree with the registry, once; for a timer. */
import type { Command } from 'commander'
import { day, hour } from '../clock.ts'
import { failure } from '../failure.ts'
import { isIssuerBusy } from '../issuer/issuer.ts'
import { openChosenRegistry, type RegistryOptions } from '../registry-address.ts'
import { print, say, type Terminal } from '../terminal.ts'
import { wholeNumber } from './arguments.ts'
import { addBooksOptions, type BooksOptions, chosenIssuer, openBooks } from './issuer.ts'
import { withRegistry } from './registry.ts'

interface SweepCommandOptions extends BooksOptions, RegistryOptions {
  readonly json?: true
  readonly dryRun?: true
  readonly minAge: number
  readonly within: number
  readonly overlap: number
}

const examples = `
See what would be done, then do it:

  $ certvend-server sweep --issuer aws-iot --dry-run
  $ certvend-server sweep --issuer aws-iot

Removed are certificates whose answer was lost (INACTIVE, never recorded, for a key of ours) and those
that were replaced. What is ACTIVE in AWS IoT and revoked, replaced or disabled here is withdrawn. Of
two that are ACTIVE for longer than --overlap, the newer is retired if only the older has opened a
session, and the older if nobody told of any: there are no presence events then. Certificates of others are not touched. It may be repeated and cut
off at any time, and runs at half of the account's quotas, so that enrolling goes first.
`

export function addSweepCommand(program: Command, terminal: Terminal): void {
  const command = withRegistry(program.command('sweep'))
    .description('remove from AWS IoT what is left over, and make it agree with the registry')
    .option('--dry-run', 'say what would be done, and change nothing')
    .option('--min-age <hours>', 'leave younger certificates alone', wholeNumber, 1)
    .option('--within <days>', 'look for lost certificates among the youngest', wholeNumber, 30)
    .option('--overlap <days>', 'how long two may be ACTIVE for one device', wholeNumber, 7)
    .option('--json', 'print JSON: one document per certificate, then the sums')
    .addHelpText('after', examples)
  addBooksOptions(command).action(async (options: SweepCommandOptions) => {
    if (chosenIssuer(options, terminal) === 'local')
      throw failure(
        2,
        'there is nothing to sweep for the local issuer',
        'name it: --issuer aws-iot',
      )
    await run(options, terminal)
  })
}

async function run(options: SweepCommandOptions, terminal: Terminal): Promise<void> {
  const { sweep } = await import('../sweep.ts')
  const registry = await openChosenRegistry(options, terminal, false)
  const { issuer, iot, gate, close } = await openBooks(options, terminal, 0.5)
  const { clock, signal } = terminal
  const { dryRun = false } = options
  try {
    const report = await sweep(
      { registry, issuer, iot, gate, clock },
      {
        signal,
        dryRun,
        ageMs: options.minAge * hour,
        windowMs: options.within * day,
        overlapMs: options.overlap * day,
        onStep(step) {
          if (options.json) print(terminal, step)
          else
            terminal.out(
              `${step.action}\t${step.certificateId}\t${step.deviceSerial ?? '-'}\t${step.why}\n`,
            )
        },
      },
    )
    if (options.json) print(terminal, { ...report, dryRun })
    const { seen, removed, withdrawn, activated, retired, left } = report
    say(
      terminal,
      `${dryRun ? 'would be: ' : ''}${removed} removed, ${withdrawn} withdrawn, ${activated} activated, ${retired} retired, ${left} left, of ${seen}`,
    )
  } catch (error) {
    if (!isIssuerBusy(error)) throw error
    throw failure(1, error.message, 'run it again: what was done stays done')
  } finally {
    close()
    await registry.close()
  }
}
