/** `certvend-server device revoke`: ends certificates, and with them the sessions. */
import type { Command } from 'commander'
import { failure } from '../failure.ts'
import type { Registry } from '../registry/registry.ts'
import { openChosenRegistry, type RegistryOptions } from '../registry-address.ts'
import { print, say, type Terminal } from '../terminal.ts'
import { certificateId, deviceSerial } from './arguments.ts'
import { find } from './device-found.ts'
import { addBooksOptions, type BooksOptions, tellAws } from './issuer.ts'
import { withRegistry } from './registry.ts'

interface RevokeOptions extends BooksOptions, RegistryOptions {
  readonly inactive?: true
  readonly certificate?: string
  readonly json?: true
}

export function addDeviceRevokeCommand(group: Command, terminal: Terminal): void {
  addBooksOptions(withRegistry(group.command('revoke')))
    .description('end its certificates at once and for ever; it stays, and can be re-armed')
    .argument('<serial>', 'the device serial', deviceSerial)
    .option('--inactive', 'INACTIVE instead of REVOKED: its key may have a certificate again')
    .option('--certificate <id>', 'this one alone (default: all of them)', certificateId)
    .option('--json', 'print JSON')
    .action(async (serial: string, options: RevokeOptions) => {
      const registry = await openChosenRegistry(options, terminal, false)
      try {
        await revoke(registry, serial, options, terminal)
      } finally {
        await registry.close()
      }
    })
}

/** Ends certificates; a broker of ours and AWS IoT then end the sessions. */
async function revoke(
  registry: Registry,
  serial: string,
  options: RevokeOptions,
  terminal: Terminal,
): Promise<void> {
  const status = options.inactive ? 'INACTIVE' : 'REVOKED'
  await find(registry, serial)
  const held = await registry.certificates(serial)
  const named = held.filter(
    (one) => one.certificateId === (options.certificate ?? one.certificateId),
  )
  if (options.certificate !== undefined && named.length === 0)
    throw failure(
      3,
      `${serial} holds no such certificate`,
      `see them: certvend-server device show ${serial}`,
    )
  const certificates: string[] = []
  for (const { certificateId: id, status: present } of named) {
    if (present === 'REVOKED' || present === status) continue
    if (await registry.setCertificateStatus(id, status, terminal.clock.now())) certificates.push(id)
  }
  await tellAws(registry, serial, options, terminal)
  say(
    terminal,
    certificates.length === 0
      ? `${serial} holds no certificate that is not ${status} already`
      : `${certificates.length} of ${serial} ${status} now`,
  )
  if (options.json) print(terminal, { deviceSerial: serial, status, certificates })
}
