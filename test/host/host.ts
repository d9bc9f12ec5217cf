/**
 * `npm run test:host`: `docs/deploy-server.md` followed literally, in a Debian 13 of its own with MariaDB
 * and mosquitto, and then `docs/gateway.md`, beside that server. The commands, the SQL and the files are
 * the pages'; what they cannot know stands in `site.ts` and `gateway.ts`. No block is left out.
 *
 * `npm run test:host -- everyday` runs, after the installation, only those steps; so do `-- database` and
 * `-- gateway`.
 *
 * Needs root, systemd-nspawn, debootstrap, iproute2, and, once, a Debian mirror; says so and ends well
 * where something is missing.
 */
import { execFileSync } from 'node:child_process'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  baseSystem,
  buildMachine,
  cache,
  host,
  type Machine,
  missingForMachines,
} from '../gateway/machine.ts'
import { openReport } from '../gateway/report.ts'
import { installPacked } from '../packed.ts'
import { database } from './database.ts'
import { everyday } from './everyday.ts'
import { gateway } from './gateway.ts'
import { installation } from './installation.ts'
import { readPage } from './page.ts'
import { openSite, type Site } from './site.ts'
import { layOver, serverSystem } from './system.ts'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const report = openReport('host')

async function main(part?: string): Promise<void> {
  const directory = fs.mkdtempSync(path.join(tmpdir(), 'certvend-gateway-'))
  let machine: Machine | undefined
  let site: Site | undefined
  const unable = (reason: string): void => report.skip('docs/deploy-server.md', reason)
  try {
    const missing = missingForMachines(['dpkg-deb', 'chroot'])
    if (missing) return unable(missing)
    let system: string
    try {
      system = await serverSystem(await baseSystem(cache))
    } catch (error) {
      return unable(`no Debian to boot (${String(error).split('\n')[0]})`)
    }
    const unreachable = await installPacked(directory, ['client', 'server'])
    if (unreachable) return unable(unreachable)
    const deb = path.join(root, 'packages/agent/packaging/deb.mjs')
    execFileSync(process.execPath, [deb, '--out', directory])
    machine = await buildMachine(system, path.join(directory, 'server'), layOver)
    const page = readPage(path.join(root, 'docs/deploy-server.md'))
    site = await openSite(machine, { page, report, directory })
    await installation(site, directory)
    const gatewayPage = readPage(path.join(root, 'docs/gateway.md'))
    if (!part || part === 'everyday') await everyday(site)
    if (!part || part === 'database') await database(site)
    if (!part || part === 'gateway') await gateway(site, gatewayPage, directory)
    if (part) return
    await report.step('no block of the two pages was left out', async () => {
      const left = [page, gatewayPage]
        .flatMap((one) => one.left())
        .map(({ step, text }) => `${step}: ${text}`)
      report.holds(left.length === 0, left.join('\n'))
    })
  } catch (error) {
    if (report.failed === 0) throw error
    const log = await machine?.run(
      'journalctl --no-pager --output cat --lines 60 --unit certvend-server --unit mosquitto --unit mariadb',
    )
    if (log) report.say(`\nThe end of its journal:\n${log.stdout}`)
  } finally {
    await machine?.destroy()
    await site?.close()
    await host('rm', '-rf', directory)
    report.close()
  }
}

await main(process.argv[2])
