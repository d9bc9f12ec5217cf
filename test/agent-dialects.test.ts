/** The real command at vending machines that speak the old dialects: first boot to a published message. */
import fs from 'node:fs'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { generateToken, hashToken } from '@certvend/server'
import { type Lab, startLab } from '@certvend/server/lab'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { type AgentProcess, start } from './agent-process.ts'
import { machines, type OldDialect, oldDialects } from './contracts/machines.ts'
import { deviceCa, enter, vendingCa } from './contracts/reference.ts'
import { makeWorld } from './contracts/world.ts'
import { certify } from './pki.ts'
import { allBytes, temporaryDirectory } from './temporary.ts'
import { sendTo } from './vending-machine.ts'

const identity = await certify('localhost', { issuer: vendingCa, dns: ['localhost'] })
const limits = { deadlineMs: 1000, replyBytes: 100_000 }

let lab: Lab
/** The device whose new certificates are inactive when it gets them. */
let shutOut: string | undefined
const fleetToken = generateToken()
beforeAll(async () => {
  lab = await startLab({
    legacy: oldDialects.map((name) => ({
      name,
      ...(name.startsWith('awslabs') && { prefix: `/${name}` }),
    })),
    async intercept(_, answer) {
      const response = await answer()
      if (shutOut !== undefined) await setNewest(shutOut, 'INACTIVE')
      return response
    },
  })
  await lab.registry.addFleet('field', await hashToken(fleetToken, 'generated'), new Date())
})
afterAll(() => lab.close())

async function setNewest(deviceSerial: string, status: 'ACTIVE' | 'INACTIVE'): Promise<void> {
  const newest = (await lab.registry.certificates(deviceSerial))[0]!
  await lab.registry.setCertificateStatus(newest.certificateId, status, new Date())
}

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

describe('a lost answer of a vending machine that answers once', () => {
  it('ends with exit code 3 and the rows to reset; nobody is asked until --again', async () => {
    const world = makeWorld({ deviceCa })
    const { deviceSerial, token } = enter(world, 'iot-atlas')
    const reach = sendTo(machines['iot-atlas'](world))
    let asked = 0
    let losing = true
    const server = https.createServer(
      { cert: identity.certificate, key: identity.privateKey },
      async (incoming, outgoing) => {
        asked++
        const url = new URL(`https://localhost${incoming.url}`)
        const headers = incoming.headers as Record<string, string>
        const body = await text(incoming)
        const reply = await reach({ method: 'POST', url, headers, body }, { ...limits })
        if (losing) outgoing.destroy()
        else outgoing.writeHead(reply.status, reply.headers).end(reply.body)
      },
    )
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    const directory = temporaryDirectory()
    fs.writeFileSync(path.join(directory, 'token'), token, { mode: 0o600 })
    fs.writeFileSync(path.join(directory, 'pin.pem'), vendingCa.certificate)
    const enroll = async (...flags: string[]) => {
      const one = start(
        ['enroll', '--once', '--server', `https://localhost:${port}`, '--pin', 'pin.pem']
          .concat(['--serial', deviceSerial, '--token-file', 'token', '--state-dir', 'state'])
          .concat(['--dialect', 'iot-atlas', ...flags]),
        { cwd: directory },
      )
      const { code } = await one.exited
      expect(one.stdout + one.stderr).not.toContain(token)
      return { code, stderr: one.stderr }
    }

    const instruction = `hint: in IoT Core delete the thing (thing_${deviceSerial} by default)`
    const first = await enroll()
    expect(first.code, first.stderr).toBe(3)
    expect(first.stderr).toContain(instruction)
    expect(first.stderr).toContain(`item device_uid=${deviceSerial}`)
    const second = await enroll()
    expect(second).toMatchObject({ code: 3 })
    expect(second.stderr).toContain(instruction)
    expect(asked).toBe(1)
    const status = start(['status', '--state-dir', 'state'], { cwd: directory })
    await status.exited
    expect(status.stdout).toMatch(/^unanswered +a request of .*; it may have been granted$/m)

    // What the operator was told to do, while the agent runs and waits.
    fs.writeFileSync(
      path.join(directory, 'agent.toml'),
      [
        `url = "https://localhost:${port}"`,
        'pins = "pin.pem"',
        'dialect = "iot-atlas"',
        `serial = "${deviceSerial}"`,
        'token_file = "token"',
        'state_directory = "state"',
      ].join('\n'),
    )
    const agent = start(['run', '--config', 'agent.toml'], { cwd: directory })
    expect(await agent.until('enroll.retry')).toMatchObject({ code: 'ERR_REPLY_LOST' })
    expect(asked).toBe(1)
    world.things.clear()
    world.rows.get(deviceSerial)!.registered = 0
    losing = false
    const again = start(['enroll', '--again', '--config', 'agent.toml'], { cwd: directory })
    expect(await again.exited, again.stderr).toMatchObject({ code: 0 })
    expect(asked).toBe(2)
    await agent.terminate()
  })
})

describe('a new certificate that the MQTT server refuses', () => {
  const keyOf = (folder: Folder, link: 'current' | 'pending'): string =>
    folder.read(`state/${link}/private-key.pem`)
  const enroll = async (folder: Folder, ...flags: string[]) => {
    const one = certvend(folder, 'enroll', ...flags)
    const { code } = await one.exited
    return { code, stderr: one.stderr }
  }
  async function rearm({ deviceSerial }: Folder): Promise<void> {
    const now = new Date()
    const openUntil = new Date(now.getTime() + 3_600_000)
    await lab.registry.rearm(deviceSerial, { token: 'keep', openUntil, revoke: false }, now)
  }

  /** A device with such a certificate beside the one in use. */
  async function waiting(dialect: OldDialect): Promise<Folder> {
    const folder = await deviceFolder(dialect)
    expect(await enroll(folder, '--once')).toMatchObject({ code: 0 })
    await rearm(folder)
    shutOut = folder.deviceSerial
    onTestFinished(() => {
      shutOut = undefined
    })
    expect(await enroll(folder, '--again')).toMatchObject({ code: 1 })
    return folder
  }

  it.each(['awslabs-2018', 'awslabs-2020', 'iot-atlas'] as const)(
    'keeps the only copy of its key (%s) until somebody discards it',
    async (dialect) => {
      const folder = await waiting(dialect)
      const key = keyOf(folder, 'pending')
      const asked = lab.requests.length
      for (const command of ['enroll --again', 'renew']) {
        const kept = certvend(folder, ...command.split(' '))
        expect(await kept.exited, kept.stderr).toMatchObject({ code: 3 })
        expect(kept.stderr).toMatch(/^hint: .*: certvend enroll --again --discard$/m)
      }
      expect(keyOf(folder, 'pending')).toBe(key)
      expect(lab.requests).toHaveLength(asked)

      const agent = certvend(folder, 'run', '--json')
      await agent.until('publish.acknowledged')
      await rearm(folder)
      shutOut = undefined
      const discarded = await enroll(folder, '--discard')
      expect(discarded.code, discarded.stderr).toBe(0)
      expect(lab.requests).toHaveLength(asked + 1)
      expect(keyOf(folder, 'current')).not.toBe(key)
      await agent.terminate()
    },
  )

  it('is used, and not discarded, when it opens a session after all', async () => {
    const folder = await waiting('awslabs-2018')
    const key = keyOf(folder, 'pending')
    const asked = lab.requests.length
    await setNewest(folder.deviceSerial, 'ACTIVE')
    expect(await enroll(folder, '--again', '--discard')).toMatchObject({ code: 0 })
    expect(keyOf(folder, 'current')).toBe(key)
    expect(lab.requests).toHaveLength(asked)
  })

  it('gives way to another where its vending machine gives it to whoever asks again', async () => {
    const folder = await waiting('express-2017')
    const asked = lab.requests.length
    await enroll(folder, '--again')
    expect(lab.requests).toHaveLength(asked + 1)
  })
})
