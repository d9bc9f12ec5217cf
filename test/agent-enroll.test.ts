/** `certvend enroll` against the lab: the built command, real TLS, real directories. */
import fs from 'node:fs'
import { type Lab, type LabOptions, startLab } from '@certvend/server/lab'
import { describe, expect, it, onTestFinished } from 'vitest'
import { deviceFolder, start } from './agent-process.ts'

async function openLab(options: LabOptions = {}): Promise<Lab> {
  const lab = await startLab(options)
  onTestFinished(() => lab.close())
  return lab
}

const key = (state: string, link: 'current' | 'pending'): string =>
  fs.readFileSync(`${state}/${link}/private-key.pem`, 'utf8')

/** Answers when `release` is called, and tells when a request has arrived. */
function held(): { intercept: LabOptions['intercept']; arrived: Promise<void>; release(): void } {
  let release = (): void => {}
  let arrive = (): void => {}
  const arrived = new Promise<void>((resolve) => {
    arrive = resolve
  })
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  return {
    arrived,
    release,
    async intercept(_, answer) {
      arrive()
      await released
      return answer()
    },
  }
}

describe('the first boot', () => {
  it('gets and stores the certificate, tells its steps on stderr and the result on stdout', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const enroll = start(['enroll', ...device.flags()], { cwd: device.path })
    expect(await enroll.exited).toEqual({ code: 0, signal: null })
    const { host } = new URL(lab.vendingUrl)
    expect(enroll.stderr).toBe(
      `made a private key and stored it\nasking ${host} for a certificate\nstored the certificate of ${device.deviceSerial}\n`,
    )
    expect(enroll.stdout).toMatch(
      new RegExp(
        `^enrolled ${device.deviceSerial} as ${device.deviceSerial}\n {2}certificate {2}[0-9a-f]{64}\n {2}valid until {2}\\d{4}-\\d\\d-\\d\\d\n {2}stored in {4}${device.state}\n$`,
      ),
    )
    expect(fs.statSync(`${device.state}/current/private-key.pem`).mode & 0o777).toBe(0o600)
  })

  it('prints the credential as JSON when asked, without the key', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    const enroll = start(['enroll', '--json', ...device.flags()], { cwd: device.path })
    await enroll.exited
    const document = JSON.parse(enroll.stdout)
    expect(Object.keys(document).sort()).toEqual([
      'certificateId',
      'deviceSerial',
      'endpoint',
      'generation',
      'issuedAt',
      'keyOrigin',
      'notAfter',
      'notBefore',
      'stateDirectory',
      'thingName',
      'vendedBy',
    ])
    expect(document).toMatchObject({
      deviceSerial: device.deviceSerial,
      endpoint: { host: 'localhost', port: lab.mqtt.port },
      stateDirectory: device.state,
    })
  })

  it('asks again, with the same key, when the reply was lost after issuing', async () => {
    let lost = 0
    const lab = await openLab({
      async intercept(_, answer) {
        const reply = await answer()
        if (lost++ > 0) return reply
        return new Response(null, { status: 503, headers: { 'retry-after': '0' } })
      },
    })
    const device = await deviceFolder(lab)
    const enroll = start(['enroll', ...device.flags()], { cwd: device.path })
    expect((await enroll.exited).code).toBe(0)
    expect(enroll.stderr).toContain('answered 503 (ERR_SERVER_BUSY); asking again in ')
    expect(lab.requests).toHaveLength(2)
    expect(fs.readdirSync(`${device.state}/generations`)).toEqual(['0000000001'])
  })
})

describe('a later boot', () => {
  it('asks nobody, and needs neither pin nor token', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    await start(['enroll', ...device.flags()], { cwd: device.path }).exited
    fs.rmSync(device.at('token'))
    fs.rmSync(device.at('pin.pem'))
    const again = start(['enroll', ...device.flags()], { cwd: device.path })
    expect((await again.exited).code).toBe(0)
    expect(again.stderr).toBe('already enrolled; nobody was asked\n')
    expect(lab.requests).toHaveLength(1)
  })

  it('for another serial is refused instead of handing over the wrong credential', async () => {
    const lab = await openLab()
    const device = await deviceFolder(lab)
    await start(['enroll', ...device.flags()], { cwd: device.path }).exited
    const other = start(['enroll', ...device.flags({ serial: 'GW-other' })], { cwd: device.path })
    expect((await other.exited).code).toBe(2)
    expect(other.stderr).toBe(
      `certvend: --serial: ${device.state} already holds the credential of ${device.deviceSerial}\nhint: give each device a state directory of its own: --state-dir DIR\n`,
    )
    expect(other.stdout).toBe('')
  })
})

describe('a refusal', () => {
  const refused = async (
    flags: readonly string[],
    cwd: string,
    env: NodeJS.ProcessEnv = {},
  ): Promise<{ code: number | null; stderr: string; stdout: string }> => {
    const enroll = start(['enroll', ...flags], { cwd, env })
    const { code } = await enroll.exited
    return { code, stderr: enroll.stderr, stdout: enroll.stdout }
  }

  it.each([
    ['an unknown device', { deviceSerial: 'GW-unknown', token: 'a-token-of-nobody' }],
    ['a wrong token', { deviceSerial: 'GW-known', token: 'a-token-of-nobody' }],
  ])('of %s exits 3 with a hint, and stores no certificate', async (_, claim) => {
    const lab = await openLab()
    await lab.addDevice('GW-known')
    const device = await deviceFolder(lab, claim)
    const { code, stderr, stdout } = await refused(device.flags(), device.path)
    expect({ code, stdout }).toEqual({ code: 3, stdout: '' })
    expect(stderr).toMatch(
      /\ncertvend: localhost:\d+ refused: .* \(ERR_CLAIM_REFUSED\)\nhint: check /,
    )
    expect(stderr).not.toContain(claim.token)
    expect(fs.existsSync(`${device.state}/current`)).toBe(false)
  })

  it('of a claim that another key has spent exits 3 and says how to re-arm it', async () => {
    const lab = await openLab()
    const first = await deviceFolder(lab)
    await start(['enroll', ...first.flags()], { cwd: first.path }).exited
    const second = await deviceFolder(lab, first)
    const { code, stderr } = await refused(second.flags(), second.path)
    expect(code).toBe(3)
    expect(stderr).toMatch(
      /\(ERR_CLAIM_SPENT\)\nhint: .*certvend-server device rearm SERIAL\nmore: docs\/errors\.md#err_claim_spent\n$/,
    )
  })

  it.each([
    ['', {}],
    [', also with NODE_TLS_REJECT_UNAUTHORIZED=0', { NODE_TLS_REJECT_UNAUTHORIZED: '0' }],
  ])('of a server under the sibling of the pin exits 3 and sends it nothing%s', async (_, env) => {
    const lab = await openLab()
    const sibling = await lab.serveUnderSibling()
    const device = await deviceFolder(lab)
    const flags = device.flags({ server: sibling.vendingUrl })
    const { code, stderr } = await refused(flags, device.path, env)
    expect(code).toBe(3)
    expect(stderr).toMatch(
      /\ncertvend: no pin vouches for localhost:\d+ .*\(ERR_SERVER_UNTRUSTED\)\nhint: /,
    )
    expect(stderr).not.toContain('Warning')
    expect(lab.requests).toEqual([])
  })

  it('by a captive portal is worth another try: exit 1, and no page in the error', async () => {
    const page = '<html>Welcome to the hotel</html>'
    const headers = { 'content-type': 'text/html' }
    const lab = await openLab({ intercept: async () => new Response(page, { headers }) })
    const device = await deviceFolder(lab)
    const { code, stderr } = await refused(['--once', ...device.flags()], device.path)
    expect(code).toBe(1)
    expect(stderr).toMatch(/answered 200 with text\/html.* \(ERR_REPLY_MALFORMED\)\nhint: /)
    expect(stderr).not.toContain('hotel')
  })
})

describe('two at once on one state directory', () => {
  it('the second is told so and exits 3, the first goes on', async () => {
    const { intercept, arrived, release } = held()
    const lab = await openLab({ ...(intercept && { intercept }) })
    const device = await deviceFolder(lab)
    const first = start(['enroll', ...device.flags()], { cwd: device.path })
    await arrived
    const second = start(['enroll', ...device.flags()], { cwd: device.path })
    expect((await second.exited).code).toBe(3)
    expect(second.stderr).toBe(
      `certvend: another process holds ${device.state}/lock (ERR_STORE_LOCKED)\nhint: another process uses this state directory; stop it, or use another directory\nmore: docs/errors.md#err_store_locked\n`,
    )
    release()
    expect((await first.exited).code).toBe(0)
    expect(lab.requests).toHaveLength(1)
  })
})

describe('SIGTERM', () => {
  it('while the server thinks: ends, and the next run goes on with the same key', async () => {
    const { intercept, arrived, release } = held()
    const lab = await openLab({ ...(intercept && { intercept }) })
    const device = await deviceFolder(lab)
    const enroll = start(['enroll', ...device.flags()], { cwd: device.path })
    await arrived
    const made = key(device.state, 'pending')
    expect((await enroll.terminate()).code).toBe(1)
    expect(enroll.stderr).toMatch(
      /\ncertvend: stopped by SIGTERM\nhint: nothing is lost; the same command goes on where this one stopped\n$/,
    )
    release()
    expect((await start(['enroll', ...device.flags()], { cwd: device.path }).exited).code).toBe(0)
    expect(key(device.state, 'current')).toBe(made)
  })

  it('between two attempts: ends', async () => {
    const busy = new Response(null, { status: 503, headers: { 'retry-after': '3600' } })
    const lab = await openLab({ intercept: async () => busy.clone() })
    const device = await deviceFolder(lab)
    const enroll = start(['enroll', ...device.flags()], { cwd: device.path })
    await enroll.untilSaid('asking again in 60 min')
    expect((await enroll.terminate()).code).toBe(1)
  })
})
