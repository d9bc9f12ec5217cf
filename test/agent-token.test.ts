/** The one-time token's life beside a real vending machine and a real broker. */
import fs from 'node:fs'
import { startLab } from '@certvend/server/lab'
import { expect, it, onTestFinished } from 'vitest'
import { deviceFolder, start } from './agent-process.ts'
import { allBytes, contents } from './temporary.ts'

it('a token that was moved into the state directory is gone after the first session', async () => {
  const lab = await startLab()
  onTestFinished(() => lab.close())
  const device = await deviceFolder(lab)
  const place = ['--state-dir', device.state]
  const moving = start(['import-token', device.at('token'), ...place], { cwd: device.path })
  expect((await moving.exited).code).toBe(0)
  expect(fs.existsSync(device.at('token'))).toBe(false)
  expect(contents(device.state)).toEqual(['claim-token'])

  const { deviceSerial } = device
  const who = ['--server', lab.vendingUrl, '--pin', device.at('pin.pem'), '--serial', deviceSerial]
  const agent = start(['run', ...who, ...place], { cwd: device.path })
  await agent.until('publish.acknowledged')
  expect(agent.events.map(({ event }) => event)).toContain('token.destroyed')
  expect(contents(device.state)).not.toContain('claim-token')
  expect(allBytes(device.state).includes(device.token)).toBe(false)
  expect(agent.stdout).not.toContain(device.token)
  expect((await agent.terminate()).code).toBe(0)
})
