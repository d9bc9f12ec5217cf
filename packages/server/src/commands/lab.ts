/** `certvend-server lab`: a whole world in one process and one directory, gone when it ends. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Command } from 'commander'
import { failure } from '../failure.ts'
import type { Lab } from '../lab.ts'
import type { LegacyRoute } from '../legacy/routes.ts'
import { jsonLog } from '../log.ts'
import { print, type Terminal } from '../terminal.ts'
import { deviceSerial, legacyRoute, port } from './arguments.ts'

interface LabCommandOptions {
  vendingPort: number
  mqttPort: number
  serial?: string
  legacy: readonly LegacyRoute[]
  legacyHttpPort: number
  json?: true
}

const examples = `
Starts a vending machine and an MQTT broker that behaves like AWS IoT Core at the door, with a
throwaway PKI, and prints what to point a device at. Everything lies in one temporary directory
that is removed at the end (SIGINT or SIGTERM).

  $ certvend-server lab
  $ certvend-server lab --json | head -1 | jq -r .vendingUrl

More devices, from another terminal, with the data directory that it prints:

  $ certvend-server device add SN-0002 --data-dir /tmp/certvend-lab-…
`

export function addLabCommand(program: Command, terminal: Terminal): void {
  program
    .command('lab')
    .description('try everything on this machine, without leaving a trace')
    .option('--vending-port <port>', 'port of the vending machine; 0 takes a free one', port, 0)
    .option('--mqtt-port <port>', 'port of the broker; 0 takes a free one', port, 0)
    .option('--serial <serial>', 'serial of the device that is added for you', deviceSerial)
    .option(
      '--legacy <name>',
      'also stand in for an old vending machine; see serve',
      legacyRoute,
      [],
    )
    .option('--legacy-http-port <port>', 'port for express-2017, without TLS', port, 0)
    .option('--json', 'print one JSON document on one line')
    .addHelpText('after', examples)
    .action((options: LabCommandOptions) => run(options, terminal))
}

async function run(options: LabCommandOptions, terminal: Terminal): Promise<void> {
  const { signal } = terminal
  const { startLab } = await import('../lab.ts') // its libraries are slow to load, and only needed here
  const directory = await mkdtemp(join(tmpdir(), 'certvend-lab-'))
  let lab: Lab | undefined
  try {
    lab = await startLab({
      ports: {
        vending: options.vendingPort,
        mqtt: options.mqttPort,
        plain: options.legacyHttpPort,
      },
      legacy: options.legacy,
      clock: terminal.clock,
      log: jsonLog(terminal.err, terminal.clock),
      registryPath: join(directory, 'registry.db'),
    }).catch((error: NodeJS.ErrnoException) => {
      if (error instanceof RangeError) throw failure(2, error.message, 'see: serve --help')
      throw error.code === 'EADDRINUSE' || error.code === 'EACCES'
        ? failure(1, `cannot listen: ${error.message}`, 'name other ports, or none')
        : error
    })
    const facts = await lay(directory, lab, options.serial)
    if (options.json) print(terminal, facts)
    else terminal.out(describe(facts))
    if (!signal.aborted) await new Promise((resolve) => signal.addEventListener('abort', resolve))
  } finally {
    await lab?.close()
    await rm(directory, { recursive: true, force: true })
  }
}

/** What to point a device at; paths are absolute. */
interface LabFacts {
  readonly vendingUrl: string
  /** Without TLS, for the one old dialect that knows none; only with `--legacy express-2017`. */
  readonly plainUrl?: string
  readonly pinFile: string
  readonly mqtt: { readonly host: string; readonly port: number; readonly trustAnchorsFile: string }
  readonly deviceCaFile: string
  readonly device: { readonly deviceSerial: string; readonly tokenFile: string }
  /** An empty directory, for the device's credential store. */
  readonly stateDir: string
  readonly dataDir: string
}

/** Puts everything that a device needs into the directory. */
async function lay(directory: string, lab: Lab, serial: string | undefined): Promise<LabFacts> {
  const { deviceSerial, token } = await lab.addDevice(serial)
  const put = async (name: string, text: string, mode: number) => {
    const path = join(directory, name)
    await writeFile(path, text, { mode, flag: 'wx' })
    return path
  }
  const stateDir = join(directory, 'state')
  await mkdir(stateDir, { mode: 0o700 })
  return {
    vendingUrl: lab.vendingUrl,
    ...(lab.plainUrl !== undefined && { plainUrl: lab.plainUrl }),
    pinFile: await put('pin.pem', lab.pins, 0o644),
    mqtt: {
      host: lab.mqtt.host,
      port: lab.mqtt.port,
      trustAnchorsFile: await put('mqtt-anchors.pem', lab.mqtt.trustAnchors.join(''), 0o644),
    },
    deviceCaFile: await put('device-ca.pem', lab.pki.deviceCa.certificate, 0o644),
    device: { deviceSerial, tokenFile: await put('claim.token', `${token}\n`, 0o600) },
    stateDir,
    dataDir: directory,
  }
}

const describe = (facts: LabFacts): string => `\
vending machine  ${facts.vendingUrl}${facts.plainUrl ? `\nwithout TLS      ${facts.plainUrl}` : ''}
pin              ${facts.pinFile}
MQTT broker      mqtts://${facts.mqtt.host}:${facts.mqtt.port}
device           ${facts.device.deviceSerial}
token            ${facts.device.tokenFile}
data             ${facts.dataDir}

Point a device at it:

  certvend enroll --server ${facts.vendingUrl} --pin ${facts.pinFile} \\
    --serial ${facts.device.deviceSerial} --token-file ${facts.device.tokenFile} \\
    --state-dir ${facts.stateDir}

Ctrl-C ends it and removes everything.
`
