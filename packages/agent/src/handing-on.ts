/** The commands that hand the identity to other programs, for the table in cli.ts. */
import { type Command, Option } from 'commander'
import type { ExportFlags } from './commands/export.ts'
import type { ExitCode } from './failure.ts'
import type { Flags } from './settings.ts'
import type { Terminal } from './terminal.ts'

interface Table {
  readonly begin: (name: string, summary: string, parent?: Command) => Command
  /** With `--state-dir` and `--config`. */
  readonly placed: (command: Command) => Command
  readonly terminal: Terminal
  readonly settle: (code: ExitCode) => void
}

const repeatable = (flags: string, about: string): Option =>
  new Option(flags, about).argParser((one: string, before: string[] | undefined) => [
    ...(before ?? []),
    one,
  ])

/** Adds `export` and `consumers`; what they need is loaded when they run. */
export function addHandingOn({ begin, placed, terminal, settle }: Table): void {
  placed(
    begin('export', 'the credential in the form in which another program takes it')
      .requiredOption(
        '--format <format>',
        'pem, pem-bundle, der, pkcs12, aws-iot-device-client, greengrass, mosquitto-bridge, properties, env, json',
      )
      .requiredOption('--out <dir>', 'where to; for certvend alone')
      .addOption(
        repeatable('--name <what=file>', 'name of key=, certificate= or anchors=; repeatable'),
      )
      .option('--key-format <form>', 'pkcs8 (default) or traditional: PKCS#1, SEC 1')
      .option('--password-file <file>', 'protects a PKCS#12 file; mode 0600')
      .option('--role-alias <name>', 'for greengrass')
      .option('--aws-region <region>', 'for greengrass; default: from the endpoint')
      .option('--credentials-endpoint <host>', 'for greengrass')
      .addOption(
        repeatable('--topic <topic>', "for mosquitto-bridge: 'sensors/# out 1'; repeatable"),
      )
      .option('--address <host:port>', "for mosquitto-bridge; default: the credential's")
      .option('--client-id <id>', 'for mosquitto-bridge; default: {thingName}-bridge')
      .option('--owner <user>', 'of the private key; default: this user')
      .option('--group <group>', 'may read the private key'),
  )
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      '\nWrites one whole set of files or none, each durable, the key with mode 0600 unless\na group is named, and points DIR/current at it. Prints the files. What is there\nalready is not written again.\n\nExample:\n  certvend export --format pem --out /etc/myprogram/identity\n  certvend export --format pem --out ./certs --name key=device.key\n  certvend export --format pkcs12 --out ./p12 --password-file p12.password',
    )
    .action(async (flags: ExportFlags) =>
      settle(await (await import('./commands/export.ts')).exportCredential(flags, terminal)),
    )

  const consumers = begin('consumers', 'programs that are handed each new identity')
  placed(begin('run', 'hand it to those that have not got it yet, in order', consumers))
    .option('--json', 'print the results as JSON')
    .addHelpText(
      'after',
      '\nWhat [[consumers]] in agent.toml says, see certvend.toml(5). Each is given the\nfiles, woken, and asked whether it is well; one that is not gets its previous\nidentity back. One that has the present identity is left alone. The unit\ncertvend-consumers.service runs this, as root, after each change of identity.\n\nExit code 0: all are well; 1: one is not; 2: usage or configuration.\n\nExample:\n  certvend consumers run --json',
    )
    .action(async (flags: Flags) =>
      settle(await (await import('./commands/consumers.ts')).consumersRun(flags, terminal)),
    )
  placed(begin('check', 'what run would do, and whether it may', consumers))
    .option('--json', 'print the report as JSON')
    .addHelpText('after', '\nWrites nothing.\n\nExample:\n  certvend consumers check')
    .action(async (flags: Flags) =>
      settle(await (await import('./commands/consumers.ts')).consumersCheck(flags, terminal)),
    )
  placed(begin('erase', 'erase every copy that was handed on', consumers))
    .addHelpText(
      'after',
      '\nFor a gateway that is given away: certvend forget erases its own credential, this\nthe copies in the directories of [[consumers]], former ones too. The programs are\nnot told.\n\nExample:\n  certvend consumers erase',
    )
    .action(async (flags: Flags) =>
      settle(await (await import('./commands/consumers.ts')).consumersErase(flags, terminal)),
    )
}
