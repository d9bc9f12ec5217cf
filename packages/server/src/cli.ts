/**
 * The command `certvend-server`: argv → command → exit code.
 *
 * Results go to standard output and words to standard error, as `certvend-server: …` and `hint: …`.
 * Exit codes: 0 done · 1 failed, trying again may help · 2 usage or configuration · 3 a person must
 * act. Nothing that failed exits with 0.
 */
import { Command, CommanderError } from 'commander'
import { addCaCommands } from './commands/ca.ts'
import { addDeviceCommands } from './commands/device.ts'
import { addFleetCommands } from './commands/fleet.ts'
import { addLabCommand } from './commands/lab.ts'
import { addRegistryCommands } from './commands/registry.ts'
import { addServeCommand } from './commands/serve.ts'
import { addSweepCommand } from './commands/sweep.ts'
import { isFailure } from './failure.ts'
import { isRegistryBusy } from './registry/registry.ts'
import { say, type Terminal } from './terminal.ts'

const about = `
Give devices their certificates. On embedded defaults one machine is enough:

  $ (umask 077; certvend-server device add SN-0001 > SN-0001.token)
  $ certvend-server serve --host vending.example.com

The device then enrolls with that token and with the pin that 'serve' names:

  $ certvend enroll --server https://vending.example.com:8443 --pin pin.pem \\
      --serial SN-0001 --token-file SN-0001.token

To take over from an older vending machine, with its table and at the URLs that its devices know:

  $ certvend-server device import devices.json --dry-run
  $ certvend-server serve --host vending.example.com --legacy awslabs-2020

To try everything on this machine, without leaving a trace:

  $ certvend-server lab

Exit codes: 0 done, 1 failed (trying again may help), 2 usage or configuration,
3 a person must act.
`

/** Runs one command. Never rejects. */
export async function runCli(argv: readonly string[], terminal: Terminal): Promise<number> {
  const program = new Command('certvend-server')
    .description('the Certificate Vending Machine')
    .addHelpText('after', about)
    .exitOverride()
    .configureOutput({
      writeOut: terminal.out,
      writeErr: terminal.err,
      outputError: (text, write) => write(`certvend-server: ${plain(text)}\n`),
    })
    .showHelpAfterError('hint: add --help to see what can be said here')
  addServeCommand(program, terminal)
  addDeviceCommands(program, terminal)
  addFleetCommands(program, terminal)
  addCaCommands(program, terminal)
  addSweepCommand(program, terminal)
  addRegistryCommands(program, terminal)
  addLabCommand(program, terminal)
  try {
    await program.parseAsync(argv, { from: 'user' })
    return 0
  } catch (error) {
    return report(error, terminal)
  }
}

/** Commander's words in this program's voice: short, without control characters, values not repeated. */
function plain(text: string): string {
  return text
    .replace(/^error: /, '')
    .replace(/^option '(.*?)' argument '.*' is invalid\. /s, '$1: ')
    .replace(/^command-argument value '.*' is invalid for argument '(.*?)'\. /s, '$1: ')
    .replaceAll(/[^\x20-\x7e]+/g, ' ')
    .trim()
    .replace(/\.$/, '')
    .slice(0, 300)
}

function report(error: unknown, terminal: Terminal): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : 2 // already said
  if (isFailure(error)) {
    say(terminal, error.message)
    if (error.hint !== undefined) terminal.err(`hint: ${error.hint}\n`)
    return error.exitCode
  }
  const isBusy = isRegistryBusy(error)
  say(terminal, isBusy ? 'the registry is busy' : `failed: ${String((error as Error)?.message)}`)
  if (isBusy) terminal.err('hint: another process is writing to it; try again\n')
  return 1
}
