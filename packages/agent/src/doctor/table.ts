/**
 * The one table of checks: causes before their consequences, so that the first finding is the most
 * likely cause. docs/troubleshooting.md is made from it.
 */
import { clock } from './checks/clock.ts'
import { consumers } from './checks/consumers.ts'
import { captivePortal, dns, network, proxy, route } from './checks/network.ts'
import {
  claim,
  dialect,
  mqttPort,
  mqttTls,
  pending,
  vendingPort,
  vendingServer,
  vendingTls,
} from './checks/servers.ts'
import { agent, clientId, publish, service, session, version } from './checks/session.ts'
import {
  configuration,
  fileModes,
  pinExpiry,
  pins,
  serial,
  token,
  vendingUrl,
} from './checks/settings.ts'
import {
  certificate,
  disk,
  fileSystem,
  inodes,
  key,
  storeSafety,
  storeWhole,
  writer,
} from './checks/store.ts'
import type { Check } from './finding.ts'

export const checks: readonly Check[] = [
  configuration,
  clock,
  storeSafety,
  key,
  storeWhole,
  fileSystem,
  disk,
  inodes,
  fileModes,
  serial,
  certificate,
  writer,
  vendingUrl,
  pins,
  pinExpiry,
  token,
  service,
  network,
  dns,
  route,
  proxy,
  captivePortal,
  mqttPort,
  mqttTls,
  session,
  publish,
  clientId,
  claim,
  pending,
  vendingPort,
  vendingTls,
  dialect,
  vendingServer,
  version,
  agent,
  consumers,
]
