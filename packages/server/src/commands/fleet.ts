/** `certvend-server fleet …`: tokens that many devices share, for the old dialect that knows such. */
import type { Command } from 'commander'
import { failure } from '../failure.ts'
import type { Fleet, Registry } from '../registry/registry.ts'
import { openChosenRegistry, type RegistryOptions } from '../registry-address.ts'
import { print, say, type Terminal } from '../terminal.ts'
import { generateToken, hashToken } from '../tokens.ts'
import { fleetName } from './arguments.ts'
import { withRegistry } from './registry.ts'

interface FleetOptions extends RegistryOptions {
  json?: true
}

const examples = `
A fleet's token is in the firmware of all its devices and is taken by the dialect gateway-2021 alone.
It opens only the devices that were added for the fleet, and each of them once.

  $ (umask 077; certvend-server fleet add pumps > pumps.token)
  $ certvend-server device add PUMP-0001 --fleet pumps
  $ certvend-server serve --legacy gateway-2021

A token that got out is worth nothing once its fleet is removed; the devices stay as they are:

  $ certvend-server fleet remove pumps
`

export function addFleetCommands(program: Command, terminal: Terminal): void {
  const group = program
    .command('fleet')
    .description('tokens that many devices share, for gateway-2021')
    .addHelpText('after', examples)

  const command = (name: string, description: string): Command =>
    withRegistry(group.command(name)).description(description).option('--json', 'print JSON')

  async function using(
    options: FleetOptions,
    work: (registry: Registry) => Promise<void>,
    create = false,
  ): Promise<void> {
    const registry = await openChosenRegistry(options, terminal, create)
    try {
      await work(registry)
    } finally {
      await registry.close()
    }
  }

  command('add', 'add a fleet; prints its token, once')
    .argument('<name>', 'what to call it', fleetName)
    .action((name: string, options: FleetOptions) =>
      using(
        options,
        async (registry) => {
          const token = generateToken()
          const stored = await hashToken(token, 'generated')
          if (!(await registry.addFleet(name, stored, terminal.clock.now())))
            throw failure(
              3,
              `there is a fleet ${name} already`,
              `for a new token, remove it and add it again: certvend-server fleet remove ${name}`,
            )
          if (options.json) print(terminal, { fleet: name, token })
          else terminal.out(`${token}\n`)
          say(terminal, `added fleet ${name}; its token is shown only now`)
        },
        true,
      ),
    )

  command('list', 'list all fleets; with --json one document per line').action(
    (options: FleetOptions) =>
      using(options, async (registry) => {
        if (!options.json) terminal.out(line('FLEET', 'ADDED'))
        for (const { name, createdAt } of await registry.fleets())
          if (options.json) print(terminal, { fleet: name, createdAt })
          else terminal.out(line(name, createdAt.toISOString()))
      }),
  )

  command('remove', 'make the token of a fleet worth nothing')
    .argument('<name>', 'its name', fleetName)
    .action((name: string, options: FleetOptions) =>
      using(options, async (registry) => {
        if (!(await registry.removeFleet(name, terminal.clock.now()))) throw noSuchFleet(name)
        say(terminal, `removed fleet ${name}`)
        if (options.json) print(terminal, { fleet: name, removed: true })
      }),
    )
}

const line = (name: string, added: string): string => `${name.padEnd(24)}  ${added}\n`

const noSuchFleet = (name: string) =>
  failure(
    3,
    `there is no fleet ${name}`,
    `add it: certvend-server fleet add ${name}; see all of them: certvend-server fleet list`,
  )

/** @throws Failure if there is no such fleet */
export async function findFleet(registry: Registry, name: string): Promise<Fleet> {
  const fleet = await registry.findFleet(name)
  if (!fleet) throw noSuchFleet(name)
  return fleet
}
