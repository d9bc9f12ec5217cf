/** What people ask of a gateway, with and without a running agent: renew, enroll again, forget. */
import fs from 'node:fs'
import net from 'node:net'
import { text } from 'node:stream/consumers'
import { type Lab, type LabOptions, startLab } from '@certvend/server/lab'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type AgentProcess, type DeviceFolder, deviceFolder, start } from './agent-process.ts'

async function folder(options: LabOptions = {}): Promise<{ lab: Lab; device: DeviceFolder }> {
  const lab = await startLab(options)
  onTestFinished(() => lab.close())
  return { lab, device: await deviceFolder(lab) }
}

async function online(options: LabOptions = {}) {
  const { lab, device } = await folder(options)
  const agent = start(['run', ...device.flags()], { cwd: device.path })
  await agent.until('publish.acknowledged')
  return { lab, device, agent }
}

async function certvend(device: DeviceFolder, ...argv: string[]) {
  const child = start(argv, { cwd: device.path })
  const { code } = await child.exited
  return { code, stdout: child.stdout, stderr: child.stderr }
}
const place = (device: DeviceFolder): string[] => ['--state-dir', device.state]
const vending = (lab: Lab, device: DeviceFolder): string[] => [
  ...['--server', lab.vendingUrl, '--pin', device.at('pin.pem')],
  ...place(device),
]

const statuses = async (lab: Lab, { deviceSerial }: DeviceFolder): Promise<string[]> =>
  (await lab.registry.certificates(deviceSerial)).map(({ status }) => status)
const count = (agent: AgentProcess, name: string): number =>
  agent.events.filter(({ event }) => event === name).length
const generations = (device: DeviceFolder): string[] =>
  fs.readdirSync(device.at('state', 'generations'))
const keyOf = (device: DeviceFolder): string =>
  fs.readFileSync(device.at('state', 'current', 'private-key.pem'), 'utf8')

async function rearm(lab: Lab, { deviceSerial }: DeviceFolder): Promise<void> {
  const now = new Date()
  const openUntil = new Date(now.getTime() + 3_600_000)
  await lab.registry.rearm(deviceSerial, { token: 'keep', openUntil, revoke: false }, now)
}

describe('certvend renew', () => {
  it('has the running agent get, prove and use another key and certificate', async () => {
    const { lab, device, agent } = await online()
    const before = keyOf(device)
    const { code, stdout, stderr } = await certvend(device, 'renew', ...place(device))
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toContain(`enrolled ${device.deviceSerial} as ${device.deviceSerial}`)
    expect(await statuses(lab, device)).toEqual(['ACTIVE', 'INACTIVE'])
    expect(keyOf(device)).not.toBe(before)
    expect(generations(device)).toEqual(['0000000002'])
    await expect.poll(() => count(agent, 'publish.acknowledged')).toBe(2)
    expect(count(agent, 'renew.proven')).toBe(1)
    expect(lab.requests.map(({ path }) => path)).toEqual(['/v1/enroll', '/v1/reenroll'])
    expect((await agent.terminate()).code).toBe(0)
  })

  it('leaves what works in use when the new certificate is refused, and says so', async () => {
    const revoked: string[] = []
    const { lab, device, agent } = await online({
      async intercept(request, answer) {
        const response = await answer()
        if (!request.url.endsWith('/v1/reenroll')) return response
        const { certificateId } = (await response.clone().json()) as { certificateId: string }
        await lab.registry.setCertificateStatus(certificateId, 'INACTIVE', new Date())
        revoked.push(certificateId)
        return response
      },
    })
    const before = keyOf(device)
    const { code, stderr } = await certvend(device, 'renew', ...place(device))
    expect(code).toBe(1)
    expect(stderr).toMatch(
      /^certvend: the new certificate is stored and has opened no session yet:/,
    )
    await expect.poll(() => count(agent, 'session.open')).toBe(2)
    expect(keyOf(device)).toBe(before)
    expect(revoked).toHaveLength(1)
    // A command that finds no agent keeps out of the way of one that is there all the same.
    fs.renameSync(device.at('state', 'control.sock'), device.at('state', 'aside.sock'))
    const aside = await certvend(device, 'renew', ...vending(lab, device))
    fs.renameSync(device.at('state', 'aside.sock'), device.at('state', 'control.sock'))
    expect(aside.code).toBe(3)
    expect(aside.stderr).toMatch(/^certvend: another process holds .* \(ERR_STORE_LOCKED\)\nhint: /)
    // Asked again, it gets its turn, and only then gives way to another.
    await lab.registry.setCertificateStatus(revoked[0] as string, 'ACTIVE', new Date())
    expect((await certvend(device, 'renew', ...place(device))).code).toBe(0)
    expect(revoked).toHaveLength(1)
    expect(keyOf(device)).not.toBe(before)
    expect((await agent.terminate()).code).toBe(0)
  })

  it('says to re-arm the device where its certificate is not taken, and stays as it is', async () => {
    const { lab, device, agent } = await online()
    const { certificateId } = (await lab.registry.certificates(device.deviceSerial))[0]!
    await lab.registry.setCertificateStatus(certificateId, 'REVOKED', new Date())
    const { code, stderr } = await certvend(device, 'renew', ...place(device))
    expect(code).toBe(3)
    expect(stderr).toContain('(certificate-refused) (ERR_CREDENTIAL_REFUSED)')
    expect(stderr).toContain('\nhint: have the device re-armed, then: certvend enroll --again')
    expect(count(agent, 'session.closed')).toBe(0)
  })

  it('works without an agent, and then a later run shows the new certificate at once', async () => {
    const { lab, device } = await folder()
    await certvend(device, 'enroll', ...device.flags())
    const { code, stderr } = await certvend(device, 'renew', ...vending(lab, device))
    expect(code).toBe(0)
    expect(stderr).toMatch(
      /^made a private key and stored it\nasking localhost:\d+ .*\nstored .*\nopening a session .*\n$/,
    )
    expect(await statuses(lab, device)).toEqual(['ACTIVE', 'INACTIVE'])
    const agent = start(['run', '--once', ...place(device)], { cwd: device.path })
    await agent.until('publish.acknowledged')
  })

  it('without a certificate is a mistake', async () => {
    const { lab, device } = await folder()
    const { code, stderr } = await certvend(device, 'renew', ...vending(lab, device))
    expect(code).toBe(2)
    expect(stderr).toContain('there is no credential to renew')
    expect(fs.existsSync(device.state)).toBe(false)
  })

  it.each([
    ['before the reply', '/v1/reenroll'],
    ['of the first session', undefined],
  ])('survives SIGKILL %s: the next run goes on with the same key', async (_, path) => {
    let hold = path !== undefined
    const { lab, device, agent } = await online({
      async intercept(request, answer) {
        const response = await answer()
        if (hold && request.url.endsWith(String(path))) {
          hold = false
          agent.child.kill('SIGKILL')
        }
        return response
      },
    })
    const asked = certvend(device, 'renew', ...vending(lab, device))
    if (path === undefined) {
      await expect.poll(() => count(agent, 'enroll.done')).toBe(2)
      agent.child.kill('SIGKILL')
    }
    await agent.exited
    const { code, stderr } = await asked
    if (path !== undefined) {
      expect(code).toBe(1)
      expect(stderr).toMatch(/^certvend: the agent did not answer \(ERR_TIMEOUT\)\nhint: /)
      expect(lab.requests.filter((request) => request.path === path)).toHaveLength(1)
    }
    const next = start(['run', ...device.flags()], { cwd: device.path })
    await next.until('publish.acknowledged')
    expect((await certvend(device, 'renew', ...place(device))).code).toBe(0)
    const active = (await statuses(lab, device)).filter((status) => status === 'ACTIVE')
    expect(active).toHaveLength(1)
    expect(generations(device)).toHaveLength(1)
  })

  it('is given up when the agent is told to stop', async () => {
    const { device, agent } = await online({
      intercept: (request, answer) =>
        request.url.endsWith('/v1/reenroll') ? new Promise(() => {}) : answer(),
    })
    const asked = certvend(device, 'renew', ...place(device))
    await expect.poll(() => count(agent, 'enroll.request')).toBe(2)
    expect((await agent.terminate()).code).toBe(0)
    expect((await asked).code).toBe(1)
  })

  it('is refused to all who wait behind another when the agent is told to stop', async () => {
    const { device, agent } = await online({
      intercept: (request, answer) =>
        request.url.endsWith('/v1/reenroll') ? new Promise(() => {}) : answer(),
    })
    const first = certvend(device, 'renew', ...place(device))
    await expect.poll(() => count(agent, 'enroll.request')).toBe(2)
    const say = (request: object): Promise<string> => {
      const socket = net.connect(device.at('state', 'control.sock'))
      socket.on('error', () => {})
      socket.write(`${JSON.stringify(request)}\n`)
      return text(socket).catch(() => '')
    }
    const behind = [{ do: 'renew' }, { do: 'forget' }, { do: 'enroll', again: true }].map(say)
    expect(JSON.parse(await say({ do: 'status' }))).toMatchObject({ ok: true }) // they are in, too
    expect((await agent.terminate()).code).toBe(0)
    const cut = { ok: false, code: 'ERR_TIMEOUT', remedy: 'retry' }
    for (const answer of await Promise.all(behind)) expect(JSON.parse(answer)).toMatchObject(cut)
    expect((await first).code).toBe(1)
    expect(generations(device)).toContain('0000000001')
  })
})

describe('certvend enroll, beside a running agent', () => {
  it('--again takes a token to it, for a device that was re-armed', async () => {
    const { lab, device, agent } = await online()
    await rearm(lab, device)
    const before = keyOf(device)
    const argv = ['enroll', '--again', '--token-file', device.at('token'), ...place(device)]
    expect((await certvend(device, ...argv)).code).toBe(0)
    expect(keyOf(device)).not.toBe(before)
    expect(await statuses(lab, device)).toEqual(['ACTIVE', 'INACTIVE'])
    expect(agent.stdout).not.toContain(device.token)
  })

  it('--again with a claim that is spent changes nothing', async () => {
    const { lab, device, agent } = await online()
    const before = keyOf(device)
    const { code, stderr } = await certvend(device, 'enroll', '--again', ...place(device))
    expect(code).toBe(3)
    expect(stderr).toContain('(ERR_CLAIM_SPENT)')
    expect(keyOf(device)).toBe(before)
    expect(await statuses(lab, device)).toEqual(['ACTIVE'])
    expect(count(agent, 'session.closed')).toBe(0)
  })

  it('gives a waiting agent the token that it lacked', async () => {
    const { device } = await folder()
    fs.writeFileSync(device.at('wrong'), 'some-other-token\n', { mode: 0o600 })
    const flags = device.flags({ 'token-file': device.at('wrong') })
    const agent = start(['run', ...flags], { cwd: device.path })
    await agent.until('enroll.retry')
    const argv = ['enroll', '--token-file', device.at('token'), '--json', ...place(device)]
    const { code, stdout } = await certvend(device, ...argv)
    expect(code).toBe(0)
    expect(JSON.parse(stdout)).toMatchObject({ deviceSerial: device.deviceSerial })
    await agent.until('publish.acknowledged')
  })

  it('that is told to stop waits no longer for what the agent does', async () => {
    let held = false
    const { device, agent } = await online({
      intercept: (_, answer) => (held ? new Promise(() => {}) : answer()),
    })
    held = true
    const enroll = start(['enroll', '--again', ...place(device)], { cwd: device.path })
    await expect.poll(() => count(agent, 'enroll.request')).toBe(2)
    enroll.child.kill('SIGTERM')
    expect((await enroll.exited).signal).toBe('SIGTERM')
    expect((await agent.terminate()).code).toBe(0)
  })

  it('refuses to say how that agent should ask', async () => {
    const { device, agent } = await online()
    const { code, stderr } = await certvend(device, 'enroll', '--again', ...device.flags())
    expect(code).toBe(2)
    expect(stderr).toContain('an agent runs on this state directory and asks by its own')
    expect(count(agent, 'enroll.request')).toBe(1)
  })

  it('--again works without an agent, too', async () => {
    const { lab, device } = await folder()
    await certvend(device, 'enroll', ...device.flags())
    const before = keyOf(device)
    expect((await certvend(device, 'enroll', '--again', ...device.flags())).code).toBe(3)
    expect(keyOf(device)).toBe(before)
    await rearm(lab, device)
    expect((await certvend(device, 'enroll', '--again', ...device.flags())).code).toBe(0)
    expect(keyOf(device)).not.toBe(before)
    expect(await statuses(lab, device)).toEqual(['ACTIVE', 'INACTIVE'])
  })
})

describe('certvend forget', () => {
  it('has the running agent take leave, have its certificate revoked, remove all and wait', async () => {
    const { lab, device, agent } = await online()
    const { code, stdout, stderr } = await certvend(device, 'forget', '--yes', ...place(device))
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toMatch(
      /^removed the key and certificate of lab-1 from .*\nthe vending machine has revoked [0-9a-f]{64}\n$/,
    )
    expect(await statuses(lab, device)).toEqual(['REVOKED'])
    const left = fs.readdirSync(device.state).sort()
    expect(left).toEqual(['control.sock', 'lock', 'query.sock'])
    const [last] = lab.mqtt.received.slice(-1)
    expect(JSON.parse(String(last?.payload))).toMatchObject({ online: false, forgotten: true })
    const status = await certvend(device, 'status', ...place(device))
    expect(status.stdout).toContain('everything was removed, as somebody asked')
    expect(count(agent, 'enroll.request')).toBe(1)
    // Told to, it starts anew, with another key.
    await rearm(lab, device)
    expect((await certvend(device, 'enroll', ...place(device))).code).toBe(0)
    await expect.poll(() => count(agent, 'publish.acknowledged')).toBe(2)
    expect((await agent.terminate()).code).toBe(0)
  })

  it('asks first, and refuses where nobody could answer', async () => {
    const { device, agent } = await online()
    const { code, stdout, stderr } = await certvend(device, 'forget', ...place(device))
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toBe(
      'certvend: forget asks before it removes anything, and nobody could answer here\nhint: if you mean it: certvend forget --yes\n',
    )
    expect(generations(device)).toHaveLength(1)
    expect(count(agent, 'session.closed')).toBe(0)
  })

  it('without an agent tells the vending machine, too, and removes what a crash left', async () => {
    const { lab, device } = await folder()
    await certvend(device, 'enroll', ...device.flags())
    fs.writeFileSync(device.at('state', '.current.0123456789abcdef'), 'left')
    const forget = await certvend(device, 'forget', '--yes', '--json', ...vending(lab, device))
    expect(forget.code).toBe(0)
    expect(JSON.parse(forget.stdout)).toMatchObject({ deviceSerial: 'lab-1', told: true })
    expect(fs.readdirSync(device.state)).toEqual(['lock'])
    expect(await statuses(lab, device)).toEqual(['REVOKED'])
    expect((await certvend(device, 'forget', '--yes', ...vending(lab, device))).code).toBe(0)
  })

  it('holds on to nothing when the vending machine does not answer, and says what to do', async () => {
    const { lab, device } = await folder()
    await certvend(device, 'enroll', ...device.flags())
    await lab.close()
    const { code, stderr } = await certvend(device, 'forget', '--yes', ...vending(lab, device))
    expect(code).toBe(0)
    expect(stderr).toMatch(
      /^certvend: the vending machine was not told: cannot reach .*\nhint: revoke it there: .*\n$/,
    )
    expect(fs.readdirSync(device.state)).toEqual(['lock'])
  })

  it('is the way out of a store that is damaged beyond repair', async () => {
    const { device } = await folder()
    await certvend(device, 'enroll', ...device.flags())
    fs.writeFileSync(device.at('state', 'current', 'private-key.pem'), 'no key')
    const refused = await certvend(device, 'enroll', ...device.flags())
    expect(refused.stderr).toContain('certvend forget')
    expect((await certvend(device, 'forget', '--yes', ...place(device))).code).toBe(0)
    expect(fs.readdirSync(device.state)).toEqual(['lock'])
  })
})
