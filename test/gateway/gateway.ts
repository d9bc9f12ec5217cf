/**
 * `npm run test:gateway`: the Debian package in a real boot. A minimal Debian is installed into a
 * cache, booted by systemd-nspawn, given the package and two lines of configuration, and put through
 * what happens to gateways. The vending machine and the broker are in another network namespace.
 *
 * `npm run test:gateway -- handing-on` runs only that part, `-- service` all but it; `--previous FILE`
 * upgrades from that package instead of from this one under an older number.
 *
 * Needs root, systemd-nspawn, debootstrap, iproute2 and, once, a Debian mirror; says so and ends well
 * where something is missing.
 */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { type Lab, startLab } from '@certvend/server/lab'
import { handingOn } from './handing-on.ts'
import { hardships } from './hardships.ts'
import {
  baseSystem,
  buildMachine,
  cache,
  host,
  hostAddress,
  type Machine,
  missingForMachines,
} from './machine.ts'
import { firstBoot, foreignSystem, missingEmulator, processors } from './processors.ts'
import { openReport } from './report.ts'

const root = fileURLToPath(new URL('../../..', import.meta.url))

const report = openReport('gateway')
const { step, holds, say } = report

async function otherProcessors(directory: string, deb: string): Promise<void> {
  const unpacked = path.join(directory, 'unpacked')
  await host('dpkg-deb', '--extract', deb, unpacked)
  for (const processor of processors) {
    const { name } = processor
    const title = `the package on ${name}: first boot to an acknowledged publish`
    const reason = missingEmulator(processor)
    if (reason) {
      report.skip(title, reason)
      continue
    }
    await step(title, async () => {
      const system = await foreignSystem(cache, processor)
      const events = await firstBoot(processor, {
        system,
        unpacked,
        state: path.join(directory, name),
      })
      holds(events.includes('enroll.done'), `it enrolls: ${events.join(', ')}`)
      holds(events.includes('publish.acknowledged'), `it publishes: ${events.join(', ')}`)
    })
  }
}

async function main(): Promise<void> {
  const { values, positionals } = parseArgs({
    options: { previous: { type: 'string' } },
    allowPositionals: true,
  })
  const [part] = positionals
  const reason = missingForMachines(['dpkg-deb'])
  if (reason) {
    report.skip('everything', reason)
    report.close()
    return
  }
  const directory = fs.mkdtempSync(path.join(tmpdir(), 'certvend-gateway-'))
  const script = path.join(root, 'packages/agent/packaging/deb.mjs')
  let machine: Machine | undefined
  let lab: Lab | undefined
  try {
    let base: string
    try {
      base = await baseSystem(cache)
    } catch (error) {
      report.skip('everything', `no Debian to boot (${String(error).split('\n')[0]})`)
      return
    }
    const packages = ['0.1.0~previous', '0.1.0'].map((version) => {
      execFileSync(process.execPath, [script, '--out', directory, '--debian-version', version])
      return path.join(directory, `certvend_${version}_all.deb`)
    })
    if (part !== 'handing-on') {
      const previous = values.previous ?? packages[0] ?? ''
      await otherProcessors(directory, packages[1] ?? '')
      machine = await buildMachine(base, path.join(directory, 'service'))
      lab = await startLab({ address: hostAddress })
      await hardships(machine, lab, { packages, previous, report })
      await machine.destroy()
      machine = undefined
    }
    if (part !== 'service') {
      machine = await buildMachine(base, path.join(directory, 'handing-on'))
      await handingOn(machine, packages[1] ?? '', report)
    }
  } catch (error) {
    if (report.failed === 0) throw error
    const log = await machine?.run(
      "journalctl --unit 'certvend*' --unit mosquitto --no-pager --output cat --lines 40",
    )
    if (log) say(`\nThe end of its journal:\n${log.stdout}`)
  } finally {
    await machine?.destroy()
    await lab?.close()
    await host('rm', '-rf', directory)
    report.close()
  }
}

await main()
