/** A proxy named by the environment, as the built command takes it. */
import { describe, expect, it } from 'vitest'
import { certvend } from './command.ts'
import { makeFolder } from './folder.ts'
import { caPem } from './pins.ts'

function device() {
  const folder = makeFolder()
  const state = folder.at('state')
  return {
    cwd: folder.path,
    flags: [
      '--server',
      'https://vending.example',
      '--pin',
      folder.write('pin.pem', caPem),
      '--serial',
      'GW-1',
      '--token-file',
      folder.write('token', 'token-of-gw-1'),
      '--state-dir',
      state,
    ],
  }
}

describe.each([['enroll'], ['run'], ['config', 'check']])('certvend %s %s', (...command) => {
  it('finds an unusable HTTPS_PROXY a mistake of the configuration, without repeating it', async () => {
    const { cwd, flags } = device()
    const words = command.filter((word) => word !== undefined)
    const env = { HTTPS_PROXY: 'socks5://device:hunter2@proxy.example:1080' }
    const { code, stdout, stderr } = await certvend([...words, ...flags], { cwd, env })
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(
      /^certvend: HTTPS_PROXY must start with http:\/\/ or https:\/\/, not with socks5:\/\/\nhint: HTTPS_PROXY=/,
    )
    expect(stderr).not.toContain('hunter2')
  })
})

it('config check shows where the proxy is, and not its credentials', async () => {
  const { cwd, flags } = device()
  const env = { HTTPS_PROXY: 'http://device:hunter2@proxy.example:3128' }
  const { code, stdout, stderr } = await certvend(['config', 'check', ...flags], { cwd, env })
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  expect(stdout).toMatch(/^proxy {7}proxy\.example:3128 \(HTTPS_PROXY\)$/m)
  expect(stdout).not.toContain('hunter2')
})
