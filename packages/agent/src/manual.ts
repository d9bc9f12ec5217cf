/**
 * The man pages, made from the table that also makes `--help`, so that they cannot disagree.
 *
 * Not part of the command: packaging runs this.
 */
import type { EventEmitter } from 'node:events'
import type { Command } from 'commander'

/** Every key of `agent.toml`: its name, how it is written, and what it means. */
export const configKeys: readonly (readonly [key: string, value: string, meaning: string])[] = [
  [
    'url',
    '"https://…"',
    'The vending machine. Needed until there is a certificate, and to renew it.',
  ],
  [
    'pins',
    '"FILE" or ["FILE", "FILE"]',
    'CA certificates (PEM) that vouch for the vending machine, and nothing else does. More than one is the normal case: the present and the next. Needed until there is a certificate, and to renew it.',
  ],
  [
    'serial',
    '"…", { file = "FILE" }, { command = ["/PROGRAM", "ARGUMENT"] } or { from = "device-tree" | "dmi" | "machine-id" }',
    'Who this device is. Default: the serial number in the device tree where the board has one, else one derived from the machine id, as by sd_id128_get_machine_app_specific(3).',
  ],
  [
    'token_file',
    '"FILE"',
    'The one-time token, readable by the agent only. Default: what certvend import-token took in, else the systemd credential claim-token, which the service loads from /etc/certvend/claim.token.',
  ],
  [
    'dialect',
    '"certvend", "awslabs-2018", "awslabs-2020", "iot-atlas", "gateway-2021" or "express-2017"',
    'How the vending machine speaks. Default "certvend". The others are vending machines that were in the field before; certvend probe tells which one a URL speaks.',
  ],
  [
    'endpoint',
    '"HOST" or "HOST:PORT"',
    'The MQTT server, where the dialect does not name it: needed with all but "certvend" and "iot-atlas". For AWS IoT Core what aws iot describe-endpoint --endpoint-type iot:Data-ATS says. Port 8883 by default.',
  ],
  [
    'endpoint_anchors',
    '"FILE"',
    'CA certificates (PEM) that vouch for the endpoint. Default: Amazon Root CA 1 and 3. What an old vending machine serves as root CA is never believed.',
  ],
  [
    'thing_name',
    '"…"',
    'The name of the thing, where the dialect does not give it. Default: the serial.',
  ],
  [
    'salt_file',
    '"FILE"',
    'With "iot-atlas": the secret that a whole product shares and that tokens are made of, instead of token_file.',
  ],
  [
    'token_formula',
    '"sha256" or "hmac-sha256"',
    'How a token is made of salt and serial: SHA-256 of salt//serial, or HMAC-SHA256 with the salt as key. Needed with salt_file.',
  ],
  [
    'authorization_scheme',
    '"WORD"',
    'With "gateway-2021": what stands before the token. Default "DeviceToken".',
  ],
  [
    'state_directory',
    '"DIRECTORY"',
    'Where key and certificate are kept. Default: $STATE_DIRECTORY, which systemd sets, else /var/lib/certvend.',
  ],
  [
    'metrics_file',
    '"FILE"',
    'Where a Prometheus text file is kept; an empty name for nowhere. Default: metrics.prom in $RUNTIME_DIRECTORY, which systemd sets, so /run/certvend/metrics.prom; else nowhere.',
  ],
  [
    'renew',
    '"automatically" or "when asked"',
    'Whether the agent renews its certificate by itself, after two thirds of its life, where the vending machine speaks our own protocol. Default "automatically". With "when asked", certvend renew does; certvend status tells when it is time.',
  ],
  ['mqtt.keep_alive', 'SECONDS', 'Between signs of life, 30 to 1200. Default 60.'],
  [
    'mqtt.status_topic',
    '"TOPIC"',
    'Where online and offline are published; {thingName} stands for the thing name, and an empty topic for nowhere. Default certvend/{thingName}/status.',
  ],
  [
    'mqtt.heartbeat',
    'SECONDS',
    'Between heartbeats with facts about the health of this machine, 10 to 86400. Default 0: none.',
  ],
  [
    'mqtt.heartbeat_topic',
    '"TOPIC"',
    'Where they are published. Default certvend/{thingName}/heartbeat; the policy must allow it.',
  ],
  [
    'mqtt.retain_status',
    'true or false',
    'Whether the server keeps the last status for later subscribers. Default false: AWS IoT Core closes on a retained message unless the policy allows it.',
  ],
  [
    'consumers.name',
    '"NAME"',
    'In a table [[consumers]], one for each program that is handed each new identity, in their order: what certvend status calls it.',
  ],
  [
    'consumers.format, consumers.directory',
    '"FORMAT" and "DIRECTORY"',
    'As certvend export --format and --out. The directory is for certvend alone, and nobody but root can write to it or to those above it. Further keys that a format takes: names, key_format, password_file, role_alias, aws_region, credentials_endpoint, topics, address, client_id.',
  ],
  [
    'consumers.owner, consumers.group, consumers.mode',
    '"USER", "GROUP", "0600"',
    'Who may read the private key. Default: root alone; with a group, mode 0640.',
  ],
  [
    'consumers.unit, consumers.action',
    '"NAME.service" and "restart" or "reload"',
    'What makes the program read its files. One that does not run is left so.',
  ],
  [
    'consumers.command',
    '["/PROGRAM", "ARGUMENT"]',
    'In the place of unit: a program to run, without a shell, with CERTVEND_DIRECTORY in its environment.',
  ],
  [
    'consumers.health',
    '["/PROGRAM", "ARGUMENT"]',
    'Asked every half second until it ends with exit code 0 or the time is over. Default for a unit: it stays active for two seconds.',
  ],
  ['consumers.time_limit', 'SECONDS', 'For waking it and for its health, each. Default 30.'],
]

const roff = (text: string): string =>
  text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replace(/^([.'])/gm, '\\&$1')

const bold = (text: string): string => `\\fB${roff(text)}\\fR`
const lines = (...parts: readonly string[]): string => `${parts.filter(Boolean).join('\n')}\n`

/** Paragraphs; in each, indented lines are shown as they are. */
function prose(text: string): string {
  return text
    .trim()
    .split(/\n{2,}/)
    .map((paragraph) => {
      const all = paragraph.split('\n')
      const shown = all.filter((line) => line.startsWith(' ')).map((line) => line.slice(2))
      return lines(
        '.PP',
        ...all.filter((line) => !line.startsWith(' ')).map(roff),
        ...(shown.length > 0 ? ['.RS', '.nf', roff(shown.join('\n')), '.fi', '.RE'] : []),
      ).trimEnd()
    })
    .join('\n')
}

function after(command: Command): string {
  let text = ''
  const write = (more: string): void => {
    text += more
  }
  const emitter = command as unknown as EventEmitter // which it is, and its types leave out
  emitter.emit('afterHelp', { command, error: false, write })
  return text
}

function optionsOf(command: Command): string {
  return command
    .createHelp()
    .visibleOptions(command)
    .map(({ flags, description }) => lines('.TP', bold(flags), roff(description)))
    .join('')
}

const argumentsOf = (command: Command): string =>
  command.registeredArguments
    .map((one) => lines('.TP', bold(`[${one.name()}]`), roff(one.description)))
    .join('')

function sections(command: Command, name: string): string {
  if (command.commands.length > 0)
    return command.commands.map((one) => sections(one, `${name} ${one.name()}`)).join('')
  return lines(
    `.SS ${bold(name)} ${roff(command.usage())}`,
    roff(sentence(command.description())),
    argumentsOf(command).trimEnd(),
    optionsOf(command).trimEnd(),
    prose(after(command)),
  )
}

const sentence = (text: string): string => `${text.charAt(0).toUpperCase()}${text.slice(1)}.`

export interface Edition {
  readonly version: string
  /** Of the release. */
  readonly date: Date
}

const header = (name: string, section: number, { version, date }: Edition): string =>
  `.TH ${name} ${section} ${date.toISOString().slice(0, 10)} "certvend ${version}" "Certvend"\n`

/** certvend(1), in man(7). */
export function commandPage(root: Command, edition: Edition): string {
  const [examples = '', exits = ''] = after(root).split('\nExit codes:')
  return (
    header('CERTVEND', 1, edition) +
    lines('.SH NAME', 'certvend \\- gets this device its certificate, and keeps it online') +
    lines('.SH SYNOPSIS', `${bold('certvend')} \\fIcommand\\fR [options]`) +
    lines('.SH DESCRIPTION', prose(root.description()).replace('.PP\n', '')) +
    lines('.SH COMMANDS') +
    root.commands.map((one) => sections(one, `certvend ${one.name()}`)).join('') +
    lines('.SH EXAMPLES', '.nf', roff(examples.replace('Examples:\n', '').trim()), '.fi') +
    lines('.SH EXIT STATUS', '.nf', roff(exits.trim()), '.fi') +
    lines(
      '.SH FILES',
      ...[
        ['/etc/certvend/agent.toml', 'The configuration, see certvend.toml(5).'],
        ['/etc/certvend/claim.token', 'The one-time token, mode 0600, where it is given so.'],
        ['/var/lib/certvend', 'Key and certificate: the state directory of the service.'],
        [
          '/usr/share/doc/certvend/docs/errors.md',
          'What each code means; beside it troubleshooting.md, where findings of doctor lead.',
        ],
        [
          '/var/lib/certvend/journal.json',
          'What failed, for certvend explain; written only when something does, and may be deleted.',
        ],
        [
          '/run/certvend/query.sock',
          'Answers certvend status and aws-credentials, for the group certvend.',
        ],
        ['/run/certvend/metrics.prom', 'A Prometheus text file, for node_exporter.'],
        ['/run/certvend-consumers/consumers.json', 'What handing the identity on came to.'],
        [
          '/run/certvend/control.sock',
          'Takes certvend reload, renew, enroll and forget, from root.',
        ],
      ].flatMap(([file = '', what = '']) => ['.TP', `\\fI${roff(file)}\\fR`, roff(what)]),
    ) +
    lines('.SH SEE ALSO', `${bold('certvend.toml')}(5), ${bold('systemd-creds')}(1)`)
  )
}

/** certvend.toml(5), in man(7). */
export function configurationPage(edition: Edition): string {
  return (
    header('CERTVEND.TOML', 5, edition) +
    lines('.SH NAME', 'certvend.toml \\- configuration of the Certvend agent') +
    lines('.SH SYNOPSIS', '\\fI/etc/certvend/agent.toml\\fR') +
    lines(
      '.SH DESCRIPTION',
      roff(
        'A TOML file. Two lines suffice, url and pins; every key may be left out. Unknown keys are refused. Relative file names are taken from the directory of this file. After a change: certvend config check, then systemctl reload certvend.',
      ),
    ) +
    lines(
      '.SH KEYS',
      ...configKeys.flatMap(([key, value, meaning]) => [
        '.TP',
        `${bold(key)} = ${roff(value)}`,
        roff(meaning),
      ]),
    ) +
    lines(
      '.SH EXAMPLE',
      '.nf',
      roff('url = "https://vending.example.com"\npins = "vending-ca.pem"'),
      '.fi',
    ) +
    lines('.SH SEE ALSO', `${bold('certvend')}(1)`)
  )
}
