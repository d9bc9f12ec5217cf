/** The last failure, as the running agent and its journal tell it. */
import fs from 'node:fs'
import { type Lab, startLab } from '@certvend/server/lab'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type AgentProcess, type DeviceFolder, deviceFolder, start } from './agent-process.ts'
import { notRoot } from './process.ts'

async function online(): Promise<{ lab: Lab; device: DeviceFolder; agent: AgentProcess }> {
  const lab = await startLab()
  onTestFinished(() => lab.close())
  const device = await deviceFolder(lab)
  const agent = start(['run', ...device.flags()], { cwd: device.path })
  await agent.until('publish.acknowledged')
  return { lab, device, agent }
}

async function explain(device: DeviceFolder, ...more: readonly string[]) {
  const child = start(['explain', ...more, '--state-dir', device.state], { cwd: device.path })
  const { code } = await child.exited
  return { code, stdout: child.stdout, stderr: child.stderr }
}

const journal = (device: DeviceFolder): string => device.at('state', 'journal.json')

describe('certvend explain', () => {
  it('has nothing to say while all is well, and nothing was written for it', async () => {
    const { device } = await online()
    expect(await explain(device)).toEqual({
      code: 0,
      stdout: 'no failure is remembered, and the agent is online\n',
      stderr: '',
    })
    expect(fs.existsSync(journal(device))).toBe(false)
  })

  it('says until when it worked, while the agent runs and after it was killed', async () => {
    const { lab, device, agent } = await online()
    await lab.mqtt.close()
    await agent.until('session.lost')
    const beside = await explain(device)
    expect(beside.stdout).toMatch(
      /^it worked until 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d, and since then: the connection to localhost:\d+ ended.* \(ERR_SESSION_LOST\)/,
    )
    await agent.until('session.retry')
    await expect.poll(() => fs.existsSync(journal(device))).toBe(true)
    agent.child.kill('SIGKILL')
    await agent.exited
    const after = await explain(device, '--json')
    const { state, sentence, episode } = JSON.parse(after.stdout)
    expect(state).toBe('failing')
    expect(sentence).toMatch(
      /^it worked until .*, and since then, when the agent last ran: cannot reach localhost:\d+ \(ECONNREFUSED\) \(ERR_NETWORK\)/,
    )
    expect(episode).toMatchObject({ code: 'ERR_NETWORK', before: ['ERR_SESSION_LOST'] })
  })

  it('goes on from an earlier agent’s journal, in which no secret is', async () => {
    const lab = await startLab()
    onTestFinished(() => lab.close())
    const device = await deviceFolder(lab, { deviceSerial: 'GW-unknown', token: 'canary-of-claim' })
    const agent = start(['run', ...device.flags()], { cwd: device.path })
    await agent.until('enroll.retry')
    expect((await agent.terminate()).code).toBe(0)
    const { stdout } = await explain(device)
    expect(stdout).toMatch(/^it has not worked since .*\(ERR_CLAIM_REFUSED\); it began when the /)
    expect(stdout).toContain('\n  more      docs/errors.md#err_claim_refused\n')
    const { mode } = fs.statSync(journal(device))
    expect(mode & 0o777).toBe(0o600)
    const everything = stdout + fs.readFileSync(journal(device), 'utf8')
    expect(everything).not.toContain('canary-of-claim')
    expect(everything).not.toContain(Buffer.from('canary-of-claim').toString('base64'))
    expect(everything).not.toMatch(/PRIVATE KEY/)
  })

  it.skipIf(notRoot)('sends who may not read the journal to somebody who may', async () => {
    const { device, agent } = await online()
    await agent.terminate()
    fs.chmodSync(device.path, 0o755)
    const { spawnSync } = await import('node:child_process')
    const { status, stderr } = spawnSync(
      'setpriv',
      [
        '--reuid=65534',
        '--clear-groups',
        process.execPath,
        agent.child.spawnargs[1] as string,
        'explain',
        '--state-dir',
        device.state,
      ],
      { cwd: '/', encoding: 'utf8', env: { PATH: process.env.PATH, HOME: '/' } },
    )
    expect(status).toBe(3)
    expect(stderr).toMatch(
      /^certvend: cannot read .*\/journal\.json \(EACCES\) \(ERR_STORE_UNREADABLE\)\nhint: run as the user that owns the state directory/,
    )
  })
})
