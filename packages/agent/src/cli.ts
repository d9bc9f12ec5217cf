/** argv → command → exit code. */
import { Command, CommanderError, Option } from 'commander'
import { type AwsFlags, awsCredentials } from './commands/aws-credentials.ts'
import { configCheck } from './commands/config.ts'
import { enroll } from './commands/enroll.ts'
import { eraseHereErrand, eraseInPlace, forget } from './commands/forget.ts'
import { importTokenFrom } from './commands/import-token.ts'
import { probe } from './commands/probe.ts'
import { reload } from './commands/reload.ts'
import { renew } from './commands/renew.ts'
import { run } from './commands/run.ts'
import { status } from './commands/status.ts'
import { storeCheck } from './commands/store.ts'
import { type ExitCode, toFailure } from './failure.ts'
import { addHandingOn } from './handing-on.ts'
import type { Flags } from './settings.ts'
import { type Output, openTerminal, type Terminal } from './terminal.ts'
import { version } from './version.ts'

const about = `Gets this device its certificate, keeps it, and keeps the device online.

The first boot asks a vending machine, with the serial and a one-time token,
over HTTPS pinned to a CA of your choice. Every later boot asks nobody.`

const examples = `
Examples:
  See what happens, with everything on the command line:
    certvend enroll --server https://vending.example.com --pin vending-ca.pem \\
      --serial GW-0001 --token-file claim.token --state-dir ./state
    certvend run --state-dir ./state

  On a gateway, where /etc/certvend/agent.toml says
    url = "https://vending.example.com"
    pins = "vending-ca.pem"
    serial = "GW-0001"
    token_file = "claim.token"
  it is
    certvend run

  How is it, for people and for programs:
    certvend status
    certvend status --json | jq -r .credential.notAfter

Exit codes:
  0  done
  1  failed, trying again may help
  2  usage or configuration
  3  a person must act`

const options = {
  server: new Option('--server <url>', 'the vending machine, https://…'),
  pin: new Option(
    '--pin <file>',
    'CA certificate (PEM) that vouches for it, and nothing else does; repeatable',
  ).argParser((file: string, before: string[] | undefined) => [...(before ?? []), file]),
  serial: new Option('--serial <serial>', 'this device'),
  tokenFile: new Option('--token-file <file>', 'file with the one-time token, mode 0600'),
  dialect: new Option('--dialect <name>', 'how it speaks, if not as certvend-server does'),
  endpoint: new Option('--endpoint <host>', 'the MQTT server, where the dialect does not name it'),
  endpointAnchors: new Option(
    '--endpoint-anchors <file>',
    'CAs (PEM) that vouch for that; default: Amazon Root CA 1 and 3',
  ),
  thingName: new Option(
    '--thing-name <name>',
    'where the dialect does not give it; default: serial',
  ),
  stateDir: new Option('--state-dir <dir>', 'where key and certificate are kept'),
  config: new Option('--config <file>', 'default: /etc/certvend/agent.toml, if it exists'),
} as const

// What no boot needs is not loaded by one.
const doctor: Action = async (flags, terminal) =>
  (await import('./commands/doctor.ts')).doctor(flags, terminal)

const explain: Action = async (flags, terminal) =>
  (await import('./commands/explain.ts')).explain(flags, terminal)

const init: Action = async (flags, terminal) =>
  (await import('./commands/init.ts')).init(flags, terminal)

type Action = (flags: Flags, terminal: Terminal) => Promise<ExitCode>

/** The table of commands; what a command comes to is told to `settle`. */
export function program(terminal: Terminal, settle: (code: ExitCode) => void): Command {
  const root = new Command('certvend')
  root
    .description(about)
    .version(`certvend ${version}`, '--version', 'print the version')
    .helpOption('--help', 'print this help')
    .helpCommand(false)
    .addHelpText('after', examples)
    .exitOverride()
    .configureOutput({
      getOutHelpWidth: () => 80,
      getErrHelpWidth: () => 80,
      writeOut: (text) => terminal.out(text),
      writeErr: (text) => terminal.progress(text.trimEnd()),
      outputError: () => {}, // said in our own voice, below
    })
  const begin = (name: string, summary: string, parent: Command = root): Command =>
    parent
      .command(name)
      .description(summary)
      .allowExcessArguments(false)
      .copyInheritedSettings(root)
      .helpOption('--help', 'print this help')
  const take = (command: Command, names: readonly (keyof typeof options)[]): Command => {
    for (const name of names) command.addOption(options[name])
    return command
  }
  const add = (
    name: string,
    summary: string,
    action: Action,
    names: readonly (keyof typeof options)[],
    parent: Command = root,
  ): Command =>
    take(begin(name, summary, parent), names).action(async (flags: Flags) =>
      settle(await action(flags, terminal)),
    )
  const claim = [
    'server',
    'pin',
    'serial',
    'tokenFile',
    'dialect',
    'endpoint',
    'endpointAnchors',
    'thingName',
  ] as const
  const place = ['stateDir', 'config'] as const
  add('init', 'ask what is needed, try each answer, and write agent.toml', init, [
    ...claim,
    ...place,
  ])
    .option('--replace', 'an agent.toml that is there')
    .addHelpText(
      'after',
      '\nAsks for the URL, the pin, the serial and the token, and tries each answer,\nspending nothing: the token is not sent. Shows the fingerprint of the CA that it\nis about to pin; without a file it shows the CA that the server sends, to be\ncompared with the operator’s. Writes vending-ca.pem, claim.token (mode 0600)\nand, last, agent.toml, to /etc/certvend or beside --config.\n\nIn a pipe it asks nothing, and wants --server, --pin and --token-file.\n\nExample:\n  certvend init --config ./agent.toml',
    )
  add('enroll', "get this device's certificate; if it has one, only say so", enroll, [
    ...claim,
    ...place,
  ])
    .option('--once', 'make one attempt; otherwise ask until it is answered')
    .option('--again', 'with the token of a re-armed claim: another key and certificate')
    .addOption(
      new Option('--discard', 'as --again; removes a waiting certificate that is refused').implies({
        again: true,
      }),
    )
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      '\nA running agent does it, in one attempt, by its own configuration and with the\ntoken given here, if one is. With --again, what is in use stays in use until the\nnew certificate has opened a session. An old vending machine whose one answer\nwas lost is asked once more by it, when that has been reset there. A new\ncertificate with the only copy of its key, made by an old vending machine, is\nkept although it is refused; --discard lets it try once more, then removes it.\n\nExample:\n  certvend enroll --server https://vending.example.com --pin vending-ca.pem \\\n    --serial GW-0001 --token-file claim.token',
    )
  add('run', 'enroll if needed, connect, and stay online', run, [...claim, ...place])
    .option('--once', 'until the first acknowledged publish')
    .option('--json', 'log JSON lines, also on a terminal')
    .addHelpText(
      'after',
      '\nRuns in the foreground and logs to stdout. Being offline or refused does not end\nit; SIGTERM does, and SIGHUP reads the configuration again.\n\nExample:\n  certvend run --config ./agent.toml',
    )
  add('renew', 'another key and certificate, by the ones in use', renew, [
    'server',
    'pin',
    ...place,
  ])
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      '\nA running agent does it, and in time by itself where it can: certvend status\nsays when. What is in use stays in use until the new certificate has opened a\nsession. The vending machine must know re-enrollment by\ncertificate; where it does not, the device is re-armed there, and then it is\ncertvend enroll --again.\n\nExample:\n  certvend renew --json | jq -r .notAfter',
    )
  add('forget', 'factory reset: remove key and certificate for good', forget, [
    'server',
    'pin',
    ...place,
  ])
    .option('--yes', 'do not ask; needed where nobody could answer')
    .option('--json', 'print the result as JSON')
    .addHelpText(
      'after',
      '\nThe vending machine, if it answers, revokes the certificate. The key is\noverwritten and removed with all that is ours in the state directory; a damaged\none, too. A running agent does it and then waits: certvend enroll, or a restart,\nstarts anew.\n\nExample:\n  certvend forget --yes',
    )
  add('status', 'who am I, am I online, until when, and what is wrong', status, place)
    .option('--json', 'print the document as JSON')
    .option('--check', 'exit code 0: online; 1: not now; 3: a person must act')
    .addHelpText(
      'after',
      '\nAsks the running agent, else reads the state directory.\n\nExample:\n  certvend status --json | jq -r .state',
    )
  add('doctor', 'what is wrong, the most likely cause first, and what to do about it', doctor, [
    ...claim,
    ...place,
  ])
    .option('--json', 'print the diagnosis as JSON')
    .addHelpText(
      'after',
      '\nChecks clock, settings, state directory, disk, names, routes, proxy, TLS and\npins of both servers, the broker and the running agent, in half a minute at\nmost. It sends no token, asks for no certificate, and leaves a running agent its\nconnection; where none runs it connects once as this device. Exit code 0:\nhealthy; 1: passes by itself; 2: usage or configuration; 3: a person must act.\n\nExample:\n  certvend doctor --json | jq -r .cause',
    )
  add('explain', 'the last failure in one sentence, and what it rests on', explain, place)
    .option('--json', 'print the explanation as JSON')
    .addHelpText(
      'after',
      '\nSince when, what was so before, and what else happened then: a jump of the\nclock, another network, a new version, a restart. Asks the running agent, else\nreads its journal in the state directory, written only when something fails.\n\nExample:\n  certvend explain --json | jq -r .sentence',
    )
  add('reload', 'let the running agent read its configuration again', reload, place).addHelpText(
    'after',
    '\nWho is online stays online, unless [mqtt] changed. SIGHUP does the same.\n\nExample:\n  certvend reload',
  )
  const config = begin('config', 'look after the configuration')
  add(
    'check',
    'judge what run would work with, and show it',
    configCheck,
    [...claim, ...place],
    config,
  ).addHelpText(
    'after',
    '\nMakes nothing and sends nothing.\n\nExample:\n  certvend config check --config ./agent.toml',
  )
  const importing = begin(
    'import-token',
    'move a token from the boot partition into the state directory',
  ).argument('[file]', '- for stdin; default: certvend.token in /boot/firmware or /boot')
  take(importing, place)
    .option('--json', 'log JSON lines, also on a terminal')
    .addHelpText(
      'after',
      '\nThe file is overwritten and removed once the copy is durable, and the copy is\ndestroyed after the first session. The service does this by itself at its start.\n\nExample:\n  certvend import-token /media/usb/certvend.token',
    )
    .action(async (file: string | undefined, flags: Flags) =>
      settle(await importTokenFrom(file, flags, terminal)),
    )
  const aws = begin('aws-credentials', 'temporary AWS credentials of this device, for any AWS SDK')
    .requiredOption('--endpoint <host>', "the account's credentials provider")
    .requiredOption('--role-alias <name>', 'role alias in AWS IoT that points to the role')
    .option('--ca <file>', 'CAs (PEM) that vouch for it; default: Amazon Root CA 1 and 3')
  take(aws, place)
    .addHelpText(
      'after',
      '\nPrints the JSON of credential_process on stdout, for ~/.aws/config:\n\n  [profile gateway]\n  credential_process = certvend aws-credentials\n    --endpoint PREFIX.credentials.iot.REGION.amazonaws.com --role-alias NAME\n\nin one line. The endpoint:\n\n  aws iot describe-endpoint --endpoint-type iot:CredentialProvider\n\nA running agent is asked first, for its group too; it keeps them in its memory\nonly. Without one, this must be able to read the state directory.\n\nExample:\n  certvend aws-credentials --role-alias NAME \\\n    --endpoint PREFIX.credentials.iot.REGION.amazonaws.com',
    )
    .action(async (flags: AwsFlags) => settle(await awsCredentials(flags, terminal)))
  const probing = begin(
    'probe',
    'which dialect a vending machine speaks, without spending anything',
  ).argument('[url]', 'default: url in agent.toml')
  take(probing, ['pin', 'config'])
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      '\nSends no token and asks for nothing that could be granted: a few GETs, and requests\nfor a serial of random digits. Exit code 0: recognised; 1: not.\n\nExample:\n  certvend probe https://API.execute-api.eu-west-1.amazonaws.com/Prod --pin AmazonRootCA1.pem',
    )
    .action(async (url: string | undefined, flags: Flags) =>
      settle(await probe(url, flags, terminal)),
    )
  const check = begin(
    'check',
    'what is there, is it whole, is it safe, and what opening it would do',
    begin('store', 'look after the state directory'),
  ).argument('[dir]', 'default: the state directory that run would use')
  take(check, place)
    .option('--json', 'print the report as JSON')
    .addHelpText(
      'after',
      '\nReads only, beside a running agent too. Exit code 0: a whole credential, safely\nkept; 1: none yet; 3: a person must act.\n\nExample:\n  certvend store check /var/lib/certvend',
    )
    .action(async (directory: string | undefined, flags: Flags) =>
      settle(await storeCheck(directory, flags, terminal)),
    )
  addHandingOn({ begin, placed: (command) => take(command, place), terminal, settle })
  return root
}

/** Runs the command that `argv` names; never throws. */
export async function main(
  argv: readonly string[],
  stdout: Output = process.stdout,
  stderr: Output = process.stderr,
): Promise<ExitCode> {
  const terminal = openTerminal(stdout, stderr)
  ignoreInsecureEnvironment(terminal)
  let code: ExitCode = 0
  const root = program(terminal, (settled) => {
    code = settled
  })
  try {
    if (argv[0] === eraseHereErrand) return eraseInPlace()
    await root.parseAsync(argv, { from: 'user' })
    return code
  } catch (error) {
    if (error instanceof CommanderError) return usage(error, terminal)
    const failure = toFailure(error)
    terminal.fail(failure)
    return failure.exitCode
  }
}

/** Verification stays on whatever this says; Node's warning of the opposite would be untrue. */
function ignoreInsecureEnvironment(terminal: Terminal): void {
  if (process.env.NODE_TLS_REJECT_UNAUTHORIZED !== '0') return
  delete process.env.NODE_TLS_REJECT_UNAUTHORIZED
  terminal.warn('NODE_TLS_REJECT_UNAUTHORIZED=0 is ignored; servers are verified all the same')
}

/** Commander's complaint in our voice. What followed a `=` is not repeated: it may be a token. */
function usage(error: CommanderError, terminal: Terminal): ExitCode {
  if (error.exitCode === 0) return 0
  if (error.code === 'commander.help') return 2 // no command: the help was the answer
  const [line = '', suggestion] = error.message.split('\n')
  const message = line
    .replace(/^error: /, '')
    .replace(/=[^']*/, '')
    .replace(/\. .*|\.$/, '')
  const near = /Did you mean (.*)\?/.exec(suggestion ?? '')?.[1]
  const hint = /'--?token'/.test(message)
    ? 'a token is never given on the command line, where every user sees it: --token-file FILE'
    : near
      ? `did you mean ${near}?`
      : 'certvend --help shows what there is'
  terminal.fail({ exitCode: 2, message, hint })
  return 2
}
