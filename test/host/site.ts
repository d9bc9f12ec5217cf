/**
 * Where the page is followed: one machine that bears the names of its examples, and people with accounts
 * on it. What the page cannot know stands here: passwords, and certificates that others make.
 */
import path from 'node:path'
import { hostAddress, type Machine, machineAddress } from '../gateway/machine.ts'
import type { Report } from '../gateway/report.ts'
import { type Certified, certify } from '../pki.ts'
import { type Desk, openDesk } from './desk.ts'
import type { Page } from './page.ts'
import { openShelf, type Shelf } from './shelf.ts'

export const passwords = { admin: 'admin-secret-1', certvend: 'server-secret-2' } as const

/** Each `…` of the page, by what stands before it. */
export const instead: Readonly<Record<string, string>> = {
  "'admin'@'%' IDENTIFIED BY '…'": `'admin'@'%' IDENTIFIED BY '${passwords.admin}'`,
  "'certvend'@'%' IDENTIFIED BY '…'": `'certvend'@'%' IDENTIFIED BY '${passwords.certvend}'`,
  "'certvend'@'localhost' IDENTIFIED BY '…'": `'certvend'@'localhost' IDENTIFIED BY '${passwords.certvend}'`,
}

/** Names that the page gives to machines: all of them this one. */
const names = ['vending.example.com', 'mqtt.example.com', 'db.example.com']

export interface Site {
  readonly machine: Machine
  readonly desk: Desk
  readonly page: Page
  readonly report: Report
  readonly mqttCa: Certified
  readonly databaseCa: Certified
  /** A server's certificate and key for a name. */
  identity(name: string, issuer: Certified): Promise<Certified>
  /** What the service's journal holds since it was asked the last time. */
  journal(): Promise<string>
  close(): Promise<void>
}

/** Gives the machine its names and its npm registry, with what is installed in `directory`. */
export async function openSite(
  machine: Machine,
  { page, report, directory }: { page: Page; report: Report; directory: string },
): Promise<Site> {
  const desk = openDesk(machine)
  const shelf: Shelf = await openShelf(directory, hostAddress)
  await desk.put('etc/hosts', `127.0.0.1 localhost vending\n${machineAddress} ${names.join(' ')}\n`)
  await desk.put('etc/hostname', 'vending\n')
  await desk.put(
    'root/.npmrc',
    `registry=${shelf.url}\naudit=false\nfund=false\nupdate-notifier=false\n`,
  )
  // The first boot of an image does by it what installing a package does by hand.
  await desk.put('etc/systemd/system-preset/10-mariadb.preset', 'disable mariadb*.socket\n')
  // Debian's unit waits for a notification that its mosquitto does not send everywhere.
  await desk.put('etc/systemd/system/mosquitto.service.d/type.conf', '[Service]\nType=exec\n')
  const [mqttCa, databaseCa] = await Promise.all([
    certify('MQTT CA', { ca: true }),
    certify('Database CA', { ca: true }),
  ])
  let since = ''
  return {
    machine,
    desk,
    page,
    report,
    mqttCa,
    databaseCa,
    identity: (name, issuer) => certify(name, { issuer, dns: [name] }),
    async journal() {
      const after = since === '' ? '' : `--after-cursor='${since}'`
      const text = await desk.must(
        `journalctl -u certvend-server --no-pager --output cat --show-cursor ${after}`,
      )
      since = /^-- cursor: (.*)$/m.exec(text)?.[1] ?? since
      return text
    },
    close: () => shelf.close(),
  }
}

/** Where a file of the machine's lies on this host. */
export const inside = ({ machine }: Site, ...names: readonly string[]): string =>
  path.join(machine.root, ...names)
