/**
 * The packaged command on the processors that gateways have: 64-bit and 32-bit ARM, emulated by
 * qemu-user, with Debian's own Node for each, from first boot to an acknowledged publish.
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { startLab } from '@certvend/server/lab'
import { host, suite } from './machine.ts'

export const processors = [
  { name: 'arm64', emulator: 'qemu-aarch64-static' },
  { name: 'armhf', emulator: 'qemu-arm-static' },
] as const

export type Processor = (typeof processors)[number]

/** Why the processor cannot be emulated here, or nothing. */
export const missingEmulator = ({ emulator }: Processor): string | undefined =>
  spawnSync(emulator, ['--version']).error ? `${emulator} is not here` : undefined

/** Debian's files for a processor, unpacked and never configured: enough to run Node. */
export async function foreignSystem(cache: string, { name }: Processor): Promise<string> {
  const base = path.join(cache, `${suite}-${name}`)
  if (fs.existsSync(base)) return base
  fs.mkdirSync(cache, { recursive: true })
  const unfinished = fs.mkdtempSync(`${base}-`)
  const flags = ['--foreign', '--variant=minbase', '--include=nodejs']
  await host('debootstrap', `--arch=${name}`, ...flags, suite, unfinished)
  const archives = path.join(unfinished, 'var/cache/apt/archives')
  for (const file of fs.readdirSync(archives).filter((one) => one.endsWith('.deb')))
    await host('dpkg-deb', '--extract', path.join(archives, file), unfinished)
  fs.renameSync(unfinished, base)
  return base
}

/** The events of `certvend run --once` with the package's bundle; rejects when it does not end well. */
export async function firstBoot(
  { emulator }: Processor,
  { system, unpacked, state }: { system: string; unpacked: string; state: string },
): Promise<string[]> {
  const lab = await startLab()
  try {
    const { deviceSerial, token } = await lab.addDevice()
    fs.mkdirSync(state)
    const put = (name: string, text: string): string => {
      fs.writeFileSync(path.join(state, name), text, { mode: 0o600 })
      return path.join(state, name)
    }
    const out = await host(
      emulator,
      ...['-L', system, path.join(system, 'usr/bin/node')],
      ...[path.join(unpacked, 'usr/share/certvend/dist/main.js'), 'run', '--once'],
      ...['--server', lab.vendingUrl, '--pin', put('pin.pem', lab.pins), '--serial', deviceSerial],
      ...['--token-file', put('token', token), '--state-dir', path.join(state, 'state')],
    )
    return out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).event)
  } finally {
    await lab.close()
  }
}
