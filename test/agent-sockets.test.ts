/** The daemon's two sockets: who gets in, what is answered, and what a reload changes. */
import fs from 'node:fs'
import net from 'node:net'
import { text } from 'node:stream/consumers'
import { type Lab, startLab } from '@certvend/server/lab'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type AgentProcess, type DeviceFolder, deviceFolder, start } from './agent-process.ts'

async function online(): Promise<{ lab: Lab; device: DeviceFolder; agent: AgentProcess }> {
  const lab = await startLab()
  onTestFinished(() => lab.close())
  const device = await deviceFolder(lab)
  const agent = start(['run', ...device.flags()], { cwd: device.path })
  await agent.until('publish.acknowledged')
  return { lab, device, agent }
}

const say = (device: DeviceFolder, door: string, line: string): Promise<string> => {
  const socket = net.connect(device.at('state', `${door}.sock`))
  socket.on('error', () => {})
  socket.write(line)
  return text(socket).catch(() => '') // it hung up
}

const command = async (device: DeviceFolder, ...argv: string[]) => {
  const child = start([...argv, '--state-dir', device.state], { cwd: device.path })
  const { code } = await child.exited
  return { code, stdout: child.stdout, stderr: child.stderr }
}

describe('the sockets', () => {
  it('let in the owner alone, and the group to ask', async () => {
    const { device } = await online()
    const mode = (name: string) => fs.statSync(device.at('state', name)).mode & 0o777
    expect(mode('control.sock')).toBe(0o600)
    expect(mode('query.sock')).toBe(0o660)
  })

  it('are gone when the agent has ended, and are taken over after SIGKILL', async () => {
    const { device, agent } = await online()
    agent.child.kill('SIGKILL')
    await agent.exited
    const second = start(['run', '--state-dir', device.state], { cwd: device.path })
    await second.until('publish.acknowledged')
    expect((await command(device, 'status', '--check')).code).toBe(0)
    expect((await second.terminate()).code).toBe(0)
    expect(fs.readdirSync(device.state).filter((name) => name.endsWith('.sock'))).toEqual([])
  })

  it.each([
    ['query', '{"do":"reload"}\n', 'reload is asked through control.sock'],
    ['query', '{"do":"forget"}\n', 'forget is asked through control.sock'],
    [
      'control',
      '[]\n',
      'a request is one of status, aws-credentials, reload, enroll, renew, forget',
    ],
    ['control', 'hello\n', 'a request is one line of JSON'],
  ])('refuse %s %j', async (door, line, message) => {
    const { device, agent } = await online()
    expect(JSON.parse(await say(device, door, line))).toMatchObject({ ok: false })
    expect(await say(device, door, line)).toContain(message)
    expect(await say(device, door, 'x'.repeat(100_000))).toBe('')
    expect((await agent.terminate()).code).toBe(0)
  })

  it('never show key or token', async () => {
    const { device } = await online()
    const answer = await say(device, 'control', '{"do":"status"}\n')
    expect(JSON.parse(answer)).toMatchObject({
      ok: true,
      result: { live: { connection: 'online' } },
    })
    expect(answer).not.toMatch(/PRIVATE KEY|BEGIN/)
    expect(answer).not.toContain(device.token)
  })
})

describe('certvend status', () => {
  it('is told by the running agent that it is online, and by nobody afterwards', async () => {
    const { device, agent } = await online()
    const beside = await command(device, 'status')
    expect(beside).toMatchObject({ code: 0, stderr: '' })
    expect(beside.stdout).toMatch(/\nagent {9}online since \d{4}-/)
    await agent.terminate()
    const after = await command(device, 'status', '--check')
    expect(after.code).toBe(1)
    expect(after.stdout).toMatch(/\nagent {9}not running, or not for this user to ask\n/)
  })
})

describe('reading the configuration again', () => {
  async function configured() {
    const lab = await startLab()
    onTestFinished(() => lab.close())
    const device = await deviceFolder(lab)
    const write = (more: string): void =>
      fs.writeFileSync(
        device.at('agent.toml'),
        `url = "${lab.vendingUrl}"\npins = "pin.pem"\nserial = "${device.deviceSerial}"\ntoken_file = "token"\nstate_directory = "state"\n${more}`,
      )
    write('')
    const agent = start(['run', '--config', 'agent.toml'], { cwd: device.path })
    await agent.until('publish.acknowledged')
    const count = (name: string) => agent.events.filter(({ event }) => event === name).length
    return { lab, device, agent, write, count }
  }

  it('keeps who is online online, unless it is about MQTT', async () => {
    const { lab, agent, write, count } = await configured()
    agent.child.kill('SIGHUP')
    await agent.until('config.reloaded')
    expect(count('session.closed')).toBe(0)
    write('[mqtt]\nstatus_topic = "elsewhere"\n')
    agent.child.kill('SIGHUP')
    await agent.until('session.closed')
    await expect.poll(() => count('session.open')).toBe(2)
    expect(lab.requests).toHaveLength(1)
    expect((await agent.terminate()).code).toBe(0)
  })

  it('keeps what it had when the new configuration is wrong', async () => {
    const { agent, write, count } = await configured()
    write('colour = "red"\n')
    agent.child.kill('SIGHUP')
    expect(await agent.until('config.refused')).toMatchObject({
      message: 'agent.toml:6: unknown key "colour"',
    })
    expect(count('session.closed')).toBe(0)
    expect((await agent.terminate()).code).toBe(0)
  })

  it('is asked for by certvend reload, which fails where no agent runs', async () => {
    const { device, agent } = await configured()
    expect(await command(device, 'reload')).toMatchObject({ code: 0 })
    await agent.until('config.reloaded')
    await agent.terminate()
    const refused = await command(device, 'reload')
    expect(refused.code).toBe(2)
    expect(refused.stderr).toContain('no agent answers this user in')
  })
})
