/** A renewal that nobody asks for, step by step: cut short, refused at the broker, not to be tried; and over the wire. */
import { once } from 'node:events'
import fs from 'node:fs'
import { configurationError, type LogEvent, runAgent } from '@certvend/agent'
import {
  type Clock,
  createClaim,
  createVendingServer,
  enroll,
  openCredentialStore,
  systemClock,
} from '@certvend/client'
import { startLab } from '@certvend/server/lab'
import { describe, expect, it, onTestFinished } from 'vitest'
import { deviceFolder, start } from './agent-process.ts'
import {
  about,
  aboutToRenew,
  day,
  type LiveOptions,
  names,
  powerCut,
  touched,
  type World,
} from './long-life.ts'
import { temporaryDirectory } from './temporary.ts'

describe('when the power goes in the middle of a renewal', () => {
  const nth = (name: LogEvent['event'], n: number) => (events: readonly LogEvent[]) =>
    about(events, name).length === n
  const cutting =
    (when: 'before' | 'after'): World['intercept'] =>
    async (answer) => {
      if (when === 'after') await answer()
      throw powerCut
    }

  it.each<[string, LiveOptions, World['intercept']?]>([
    ['once the key is stored', { until: nth('enroll.key', 1) }],
    ['before the request arrives', {}, cutting('before')],
    ['once the certificate is made and before it is here', {}, cutting('after')],
    ['once the certificate is stored', { until: nth('enroll.done', 1) }],
    ['between the old session and the new one', { until: nth('session.closed', 1) }],
    ['once it is proven', { until: nth('renew.proven', 1) }],
    ['in the new session', { until: nth('session.open', 2) }],
  ])('%s, the next start goes on: one key, one new certificate', async (_, options, intercept) => {
    const { world, credential } = await aboutToRenew()
    const really = world.intercept
    if (intercept) world.intercept = intercept
    const cut = await world.live(3 * day, options)
    expect(cut.isCut).toBe(true)
    world.intercept = really
    const next = await world.live(day)
    expect(cut.count('enroll.key') + next.count('enroll.key')).toBe(1)
    expect(cut.count('renew.proven') + next.count('renew.proven')).toBe(1)
    expect(next.count('session.retry') + next.count('session.lost')).toBe(0)
    expect(await world.statuses()).toEqual(['INACTIVE', 'ACTIVE'])
    expect((await world.inUse()).certificateId).not.toBe(credential.certificateId)
    expect(fs.readdirSync(`${world.directory}/generations`)).toHaveLength(1)
  })
})

it('told to stop while it is asking, the agent stops, says nothing of a failure, and goes on at the next start', async () => {
  const { world } = await aboutToRenew()
  const stop = new AbortController()
  const stopped = await world.live(3 * day, {
    signal: stop.signal,
    async send(_, { signal }) {
      const given = once(signal as AbortSignal, 'abort')
      stop.abort(new Error('stopped'))
      await given
      throw signal?.reason
    },
  })
  expect(names(stopped.events).slice(-3)).toEqual([
    'enroll.key',
    'enroll.request',
    'session.closed',
  ])
  const next = await world.live(day)
  expect([next.count('enroll.key'), next.count('renew.proven')]).toEqual([0, 1])
})

describe('a successor that the broker does not admit', () => {
  it('leaves the one in use in use, gets its turns, and is what is used once it is admitted', async () => {
    const { world, credential } = await aboutToRenew()
    world.admits = (certificateId) => certificateId === credential.certificateId
    const shut = await world.live(3 * day)
    expect(shut.count('renew.unproven')).toBeGreaterThanOrEqual(5)
    expect(shut.count('renew.unproven')).toBeLessThanOrEqual(7)
    expect(shut.count('renew.retry')).toBe(0)
    expect(world.asked).toHaveLength(1)
    expect((await world.inUse()).certificateId).toBe(credential.certificateId)
    world.admits = () => true
    const open = await world.live(2 * day)
    expect(open.count('renew.proven')).toBe(1)
    expect(world.asked).toHaveLength(1)
    expect(await world.statuses()).toEqual(['INACTIVE', 'ACTIVE'])
  })

  it('for half a week gives way to another, and one in use that is good is never given up for it', async () => {
    const { world, credential } = await aboutToRenew()
    let shutOut: string | undefined
    world.intercept = async (answer) => {
      const response = await answer()
      shutOut ??= JSON.parse(Buffer.from(response.body).toString()).certificateId
      return response
    }
    world.admits = (certificateId) => certificateId !== shutOut
    const { count } = await world.live(10 * day)
    expect(world.asked).toHaveLength(2)
    expect(world.asked[1]!.getTime() - world.asked[0]!.getTime()).toBeGreaterThan(3 * day)
    expect(count('renew.proven')).toBe(1)
    expect(count('renew.unproven')).toBe(9)
    const { certificateId } = await world.inUse()
    expect([credential.certificateId, shutOut]).not.toContain(certificateId)
    expect(world.mostActive).toBeLessThanOrEqual(3)
  })
})

describe('beside a running agent', () => {
  it('a second one on the same state directory ends before it asks, also when it is time', async () => {
    const { world } = await aboutToRenew()
    world.clock.set(new Date(world.clock.now().getTime() + 2 * day))
    const first = await world.open()
    first.lock()
    await expect(world.live(day)).rejects.toMatchObject({ code: 'ERR_STORE_LOCKED' })
    expect(world.asked).toEqual([])
    first.close()
    expect((await world.live(day)).count('renew.proven')).toBe(1)
  })
})

describe('an obstacle that can be told without asking', () => {
  it.each([
    [
      'the operator wants to be asked',
      () => ({ renew: () => 'when asked' as const }),
      'certvend renew',
    ],
    [
      'the vending machine speaks another dialect',
      ({ server }: World) => {
        const { pem } = server.pins
        const old = createVendingServer({
          url: 'https://old.example',
          pins: pem,
          dialect: 'iot-atlas',
        })
        return { vendingServer: () => old }
      },
      'certvend enroll --again',
    ],
    [
      'the pin is not there any more',
      () => ({
        vendingServer: () => {
          throw configurationError('no pin', 'name it')
        },
      }),
      'name it',
    ],
  ])('is told once, and nobody is asked: %s', async (_, more, hint) => {
    const { world, credential } = await aboutToRenew()
    const before = touched(world.directory)
    const { events } = await world.live(20 * day, more(world))
    expect(about(events, 'renew.needed')).toMatchObject([{ hint: expect.stringContaining(hint) }])
    expect(about(events, 'renew.retry')).toEqual([])
    expect(world.asked).toEqual([])
    expect(touched(world.directory)).toBe(before)
    expect((await world.inUse()).certificateId).toBe(credential.certificateId)
  })
})

describe('over the wire', () => {
  it('gets, proves and uses a successor by mutual TLS, with one reconnect, and tells the broker', async () => {
    // TLS judges by the system's clock: the certificate was issued days ago, and is valid until tomorrow.
    let behindMs = 5 * day
    const clock: Clock = {
      now: () => new Date(Date.now() - behindMs),
      wait: systemClock.wait,
    }
    const lab = await startLab({ clock, certificateValidityMs: 6 * day })
    onTestFinished(() => lab.close())
    const server = createVendingServer({ url: lab.vendingUrl, pins: lab.pins })
    const directory = temporaryDirectory()
    const store = await openCredentialStore(directory)
    const claim = createClaim(await lab.addDevice('gw-1'))
    const first = await enroll(store, server, claim, { clock })
    const stop = new AbortController()
    const events: LogEvent[] = []
    let tell = (): void => {}
    const published = (times: number) =>
      new Promise<void>((resolve) => {
        tell = () => about(events, 'publish.acknowledged').length >= times && resolve()
        tell()
      })
    const running = runAgent({
      store,
      enrollment: () => ({ server, claim }),
      signal: stop.signal,
      clock,
      turnEveryMs: 50,
      log(event) {
        events.push(event)
        tell()
      },
    })
    await published(1)
    behindMs = 0
    await published(2)
    stop.abort(new Error('enough'))
    await running
    expect(names(events)).toEqual([
      ...['credential.found', 'session.open', 'publish.acknowledged'],
      ...['enroll.key', 'enroll.request', 'enroll.done', 'session.closed'],
      ...['renew.proven', 'session.open', 'publish.acknowledged', 'session.closed'],
    ])
    expect(lab.requests.map(({ path }) => path)).toEqual(['/v1/enroll', '/v1/reenroll'])
    const states = (await lab.registry.certificates('gw-1')).map(({ status }) => status)
    expect(states).toEqual(['ACTIVE', 'INACTIVE'])
    const second = (await openCredentialStore(directory, { readOnly: true })).current()!
    expect(second.certificateId).not.toBe(first.certificateId)
    expect(second.privateKey.toPem()).not.toBe(first.privateKey.toPem())
    expect(lab.mqtt.opened).toBe(2)
    expect(lab.mqtt.refusals).toEqual([])
  })

  it('replaces a key that an old vending machine has made as soon as it is asked in our own protocol', async () => {
    const lab = await startLab({ legacy: [{ name: 'iot-atlas' }] })
    onTestFinished(() => lab.close())
    const device = await deviceFolder(lab)
    const { host, port, trustAnchors } = lab.mqtt
    fs.writeFileSync(device.at('mqtt-ca.pem'), trustAnchors.join(''))
    const old = device.flags({
      dialect: 'iot-atlas',
      endpoint: `${host}:${port}`,
      'endpoint-anchors': device.at('mqtt-ca.pem'),
    })
    const before = start(['run', ...old], { cwd: device.path })
    await before.until('publish.acknowledged')
    const status = async (...flags: string[]) => {
      const asked = start(['status', ...flags], { cwd: device.path })
      await asked.exited
      return asked.stdout
    }
    const place = ['--state-dir', device.state]
    expect(await status(...place)).toMatch(
      /\nrenews +on 20\d\d-.*, not by itself: a vending machine of the dialect iot-atlas knows claims only\n +hint: have the device re-armed/,
    )
    expect(before.events.filter(({ event }) => event.startsWith('renew.'))).toEqual([])
    expect((await before.terminate()).code).toBe(0)

    const agent = start(['run', ...device.flags()], { cwd: device.path })
    await agent.until('renew.proven')
    await agent.until('publish.acknowledged')
    expect(await status(...place)).toMatch(/\nrenews +on 20\d\d-\d\d-\d\d, by itself\n/)
    expect(await status('--json', ...place)).toContain('"keyOrigin": "device"')
    expect((await agent.terminate()).code).toBe(0)
    const states = (await lab.registry.certificates(device.deviceSerial)).map(
      ({ status: state }) => state,
    )
    expect(states).toEqual(['ACTIVE', 'INACTIVE'])
  })

  it('with renew = "when asked" in agent.toml leaves that to certvend renew, and says so', async () => {
    const lab = await startLab()
    onTestFinished(() => lab.close())
    const device = await deviceFolder(lab)
    fs.writeFileSync(device.at('agent.toml'), 'renew = "when asked"\n')
    const flags = [...device.flags(), '--config', device.at('agent.toml')]
    const agent = start(['run', ...flags], { cwd: device.path })
    await agent.until('publish.acknowledged')
    const place = ['--config', device.at('agent.toml'), '--state-dir', device.state]
    const asked = start(['status', ...place], { cwd: device.path })
    expect((await asked.exited).code).toBe(0)
    expect(asked.stdout).toMatch(
      /\nrenews +on 20\d\d-.*, not by itself: renew = "when asked" is configured\n +hint: certvend renew\n/,
    )
    expect((await agent.terminate()).code).toBe(0)
    expect(lab.requests).toHaveLength(1)
  })
})
