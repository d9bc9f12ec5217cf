/** The real command at vending machines that speak the old dialects: first boot to a published message. */
import fs from 'node:fs'
import path from 'node:path'
import { generateToken, hashToken } from '@certvend/server'
import { type Lab, startLab } from '@certvend/server/lab'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { type AgentProcess, start } from './agent-process.ts'
import { type OldDialect, oldDialects } from './contracts/machines.ts'
import { allBytes, temporaryDirectory } from './temporary.ts'

let lab: Lab
const fleetToken = generateToken()
beforeAll(async () => {
  lab = await startLab({
    legacy: oldDialects.map((name) => ({
      name,
      ...(name.startsWith('awslabs') && { prefix: `/${name}` }),
    })),
  })
  await lab.registry.addFleet('field', await hashToken(fleetToken, 'generated'), new Date())
})
afterAll(() => lab.close())

interface Folder {
  readonly path: string
  readonly deviceSerial: string
  readonly token: string
  write(name: string, text: string): void
  read(name: string): string
}

/** A device's folder with a configuration for `dialect` in it. */
async function deviceFolder(dialect: OldDialect, more = ''): Promise<Folder> {
  const { host, port, trustAnchors } = lab.mqtt
  const directory = temporaryDirectory()
  const write = (name: string, text: string): void =>
    fs.writeFileSync(path.join(directory, name), text, { mode: 0o600 })
  const fleet = dialect === 'gateway-2021'
  const deviceSerial = `${dialect}-${generateToken().replaceAll(/\W/g, '').slice(0, 8)}`
  if (fleet)
    await lab.registry.add(
      { deviceSerial, thingName: deviceSerial, fleet: 'field' },
      undefined,
      new Date(),
    )
  const { token } = fleet ? { token: fleetToken } : await lab.addDevice(deviceSerial)
  const url =
    dialect === 'express-2017'
      ? lab.plainUrl!
      : `${lab.vendingUrl}${dialect.startsWith('awslabs') ? `/${dialect}` : ''}`
  write('token', `${token}\n`)
  write('vending-ca.pem', lab.pins)
  write('mqtt-ca.pem', trustAnchors.join(''))
  write(
    'agent.toml',
    [
      `url = "${url}"`,
      ...(dialect === 'express-2017' ? [] : ['pins = "vending-ca.pem"']),
      `dialect = "${dialect}"`,
      `endpoint = "${host}:${port}"`,
      'endpoint_anchors = "mqtt-ca.pem"',
      `serial = "${deviceSerial}"`,
      'token_file = "token"',
      'state_directory = "state"',
      more,
    ].join('\n'),
  )
  const read = (name: string): string => fs.readFileSync(path.join(directory, name), 'utf8')
  return { path: directory, deviceSerial, token, write, read }
}

const certvend = (folder: Folder, ...argv: string[]): AgentProcess =>
  start([...argv, '--config', 'agent.toml'], { cwd: folder.path })

describe.each(oldDialects)('%s', (dialect) => {
  it('takes a blank device to a published message, and says whose the key is', async () => {
    const folder = await deviceFolder(dialect)
    const first = certvend(folder, 'run', '--once')
    expect(await first.exited, first.stdout + first.stderr).toMatchObject({ code: 0 })
    const { deviceSerial, token } = folder
    expect(first.events.map(({ event }) => event)).toEqual(
      expect.arrayContaining(['enroll.done', 'session.open', 'publish.acknowledged']),
    )
    expect(first.stdout.includes('plain HTTP') || first.stdout.includes('server.plain')).toBe(
      dialect === 'express-2017',
    )
    const heard = lab.mqtt.received.filter(({ topic }) => topic.includes(deviceSerial))
    expect(heard.length).toBeGreaterThan(0)

    const status = certvend(folder, 'status')
    await status.exited
    expect(status.stdout).toMatch(
      new RegExp(`private key +made by the vending machine \\(${dialect}\\) and sent here`),
    )
    const json = certvend(folder, 'status', '--json')
    await json.exited
    expect(JSON.parse(json.stdout).credential).toMatchObject({
      deviceSerial,
      keyOrigin: 'server',
      vendedBy: { dialect },
    })

    const asked = lab.requests.length
    const second = certvend(folder, 'run', '--once')
    expect(await second.exited).toMatchObject({ code: 0 })
    expect(lab.requests).toHaveLength(asked)
    for (const one of [first, second, status, json])
      expect(one.stdout + one.stderr).not.toContain(token)
    expect(allBytes(path.join(folder.path, 'state')).includes(token)).toBe(false)
  })

  it('is recognised by certvend probe, which spends nothing', async () => {
    const folder = await deviceFolder(dialect)
    const probe = certvend(folder, 'probe', '--json')
    const { code } = await probe.exited
    expect(code, probe.stdout + probe.stderr).toBe(0)
    // The lab stands in for several at once.
    expect(JSON.parse(probe.stdout).dialects).toContain(dialect)
    expect(probe.stdout).not.toContain(folder.token)
    const after = certvend(folder, 'enroll', '--once')
    expect(await after.exited, after.stderr).toMatchObject({ code: 0 })
  })
})
