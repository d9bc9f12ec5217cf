/** doctor, explain and init as a person meets them in a terminal, and as a program does in a pipe. */
import fs from 'node:fs'
import { type Lab, startLab } from '@certvend/server/lab'
import { describe, expect, it, onTestFinished } from 'vitest'
import { type DeviceFolder, deviceFolder, start } from './agent-process.ts'
import { inTerminal, terminalMissing } from './pseudo-terminal.ts'

async function world(): Promise<{ lab: Lab; device: DeviceFolder }> {
  const lab = await startLab()
  onTestFinished(() => lab.close())
  return { lab, device: await deviceFolder(lab) }
}

const place = (device: DeviceFolder): string[] => ['--state-dir', device.state]

async function piped(device: DeviceFolder, ...argv: readonly string[]) {
  const child = start(argv, { cwd: device.path })
  const { code } = await child.exited
  return { code, stdout: child.stdout, stderr: child.stderr }
}

/** With what differs from run to run replaced. */
const settled = (text: string, device: DeviceFolder): string =>
  text
    .replaceAll(device.path, 'HERE')
    .replace(/localhost:\d+/g, 'localhost:PORT')
    .replace(/\([\d.]+ s\)/, '(SOON)')
    .replace(/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d/g, 'THEN')
    .replace(
      /\d+ checks found nothing wrong, \d+ could not/,
      'N checks found nothing wrong, M could not',
    )

const nothingAnswers = `most likely cause: localhost:PORT does not take connections: cannot reach localhost:PORT (ECONNREFUSED)
  check     mqtt-port
  expected  a connection to port NUMBER of localhost
  do this   look whether the broker runs; from here: curl -v telnet://localhost:PORT
  more      docs/troubleshooting.md#mqtt-port

N checks found nothing wrong, M could not be made; --json lists them
`

describe.skipIf(terminalMissing)('in a terminal', () => {
  it('doctor shows where it looks on one row, and then only what it found', async () => {
    const { lab, device } = await world()
    await piped(device, 'enroll', ...device.flags())
    await lab.mqtt.close()
    const terminal = inTerminal(['doctor', ...place(device)], { cwd: device.path })
    expect(await terminal.exited).toBe(1)
    expect(terminal.raw).toContain('\r\x1b[Klooking at the way to localhost:')
    const shown = settled(terminal.screen, device).replace(/port \d+ of/, 'port NUMBER of')
    expect(shown).toBe(nothingAnswers)
  })

  it('explain is one sentence, and what it rests on', async () => {
    const { lab, device } = await world()
    const agent = start(['run', ...device.flags()], { cwd: device.path })
    await agent.until('publish.acknowledged')
    await lab.mqtt.close()
    await agent.until('session.lost')
    const terminal = inTerminal(['explain', ...place(device)], { cwd: device.path })
    expect(await terminal.exited).toBe(0)
    expect(settled(terminal.screen, device)).toBe(
      `it worked until THEN, and since then: the connection to localhost:PORT ended (ERR_SESSION_LOST)
  since     THEN
  attempts  1, at THEN
  worked    from THEN to THEN (SOON)
  agent     0.1.0
  do this   the MQTT connection ended; stayConnected opens the next one by itself
  more      docs/errors.md#err_session_lost
`,
    )
  })

  it('init asks, tries each answer, shows the fingerprint, and writes what enrolls', async () => {
    const { lab, device } = await world()
    const file = device.at('etc/agent.toml')
    const terminal = inTerminal(['init', '--config', file, ...place(device)], { cwd: device.path })
    await terminal.until('vending machine (https://…): ')
    terminal.type('http://localhost')
    await terminal.until('the vending URL must start with https://')
    await terminal.until('vending machine (https://…): ')
    terminal.type(lab.vendingUrl.replace('https://', ''))
    await terminal.until(' answers')
    await terminal.until('or Enter to see what the server shows: ')
    terminal.type('')
    await terminal.until('SHA-256      ')
    await terminal.until('is it the same? [y/N] ')
    terminal.type('')
    await terminal.until('a CA that nobody has compared is not pinned')
    await terminal.until('or Enter to see what the server shows: ')
    terminal.type('pin.pem')
    await terminal.until('vouches for localhost')
    await terminal.until('serial')
    terminal.type('To be filled by O.E.M.')
    await terminal.until('this is what many devices show instead of a serial')
    await terminal.until('serial')
    terminal.type(device.deviceSerial)
    await terminal.until('put it there later: ')
    terminal.type('two words')
    await terminal.until('that is neither a token nor the name of a file')
    await terminal.until('put it there later: ')
    terminal.type(device.token)
    await terminal.until(`write this to ${file}? [Y/n] `)
    expect(lab.requests.filter(({ method }) => method !== 'GET')).toEqual([])
    expect(fs.existsSync(file)).toBe(false)
    terminal.type('')
    expect(await terminal.exited).toBe(0)
    expect(terminal.raw).not.toContain(device.token)

    expect(fs.readFileSync(file, 'utf8')).toBe(
      `# Made by certvend init. man certvend.toml has every key.
url = "${lab.vendingUrl}"
pins = "vending-ca.pem"
serial = "${device.deviceSerial}"
token_file = "claim.token"
state_directory = "${device.state}"
`,
    )
    const mode = (name: string): number => fs.statSync(device.at('etc', name)).mode & 0o777
    expect([mode('agent.toml'), mode('vending-ca.pem'), mode('claim.token')]).toEqual([
      0o644, 0o644, 0o600,
    ])
    expect(await piped(device, 'enroll', '--config', file)).toMatchObject({ code: 0 })
  })

  it('init pins what the server shows once its fingerprint was compared', async () => {
    const { lab, device } = await world()
    const file = device.at('agent.toml')
    const terminal = inTerminal(
      ['init', '--config', file, '--server', lab.vendingUrl, '--token-file', 'token'],
      { cwd: device.path },
    )
    await terminal.until('or Enter to see what the server shows: ')
    terminal.type('')
    await terminal.until('is it the same? [y/N] ')
    const { X509Certificate } = await import('node:crypto')
    expect(terminal.raw).toContain(new X509Certificate(lab.pins).fingerprint256)
    terminal.type('y')
    await terminal.until('CN=Lab intermediate vouches for localhost')
    await terminal.until('serial')
    terminal.type(device.deviceSerial)
    await terminal.until('[Y/n] ')
    terminal.type('y')
    expect(await terminal.exited).toBe(0)
    expect(fs.readFileSync(device.at('vending-ca.pem'), 'utf8')).toBe(lab.pins)
  })

  it.each([
    ['Ctrl-C', '\x03'],
    ['Ctrl-D', '\x04'],
  ])('init writes nothing after %s', async (_, key) => {
    const { device } = await world()
    const terminal = inTerminal(['init', '--config', 'agent.toml'], { cwd: device.path })
    await terminal.until('vending machine (https://…): ')
    terminal.child.stdin?.write(key)
    expect(await terminal.exited).toBe(1)
    expect(terminal.screen).toContain('certvend: stopped; nothing was written')
    expect(fs.existsSync(device.at('agent.toml'))).toBe(false)
  })
})

describe('in a pipe', () => {
  it('doctor says each step on a line of stderr, and the diagnosis on stdout', async () => {
    const { lab, device } = await world()
    const { host } = new URL(lab.vendingUrl)
    expect(await piped(device, 'doctor', ...device.flags())).toEqual({
      code: 0,
      stdout: expect.stringMatching(
        /^ready to enroll: localhost answers as a vending machine, vouched for by CN=Lab intermediate; certvend run asks for the certificate\n\d+ checks found nothing wrong, \d+ could not be made; --json lists them\n$/,
      ),
      stderr: `looking at ${device.state} …\nlooking at the way to ${host} …\n`,
    })
  })

  it.each([
    ['a mistake in the settings', 2, { serial: 'System Serial Number' }],
    ['a server that nobody vouches for', 3, {}],
  ])('doctor exits by %s with %d', async (what, expected, changed) => {
    const { lab, device } = await world()
    const server = what.includes('server')
      ? (await lab.serveUnderSibling()).vendingUrl
      : lab.vendingUrl
    const { code, stdout } = await piped(device, 'doctor', ...device.flags({ server, ...changed }))
    expect(stdout).toMatch(/^most likely cause: /)
    expect(code).toBe(expected)
  })

  it('doctor and explain print JSON that programs read', async () => {
    const { device } = await world()
    const doctor = await piped(
      device,
      'doctor',
      '--json',
      ...device.flags({ 'token-file': 'none' }),
    )
    expect(JSON.parse(doctor.stdout)).toMatchObject({
      version: 1,
      healthy: false,
      cause: 'token',
      findings: [{ check: 'token', care: 'configure', docs: 'docs/troubleshooting.md#token' }],
    })
    const explain = await piped(device, 'explain', '--json', ...place(device))
    expect(JSON.parse(explain.stdout)).toEqual({
      version: 1,
      state: 'well',
      sentence: 'no failure is remembered, and no agent answers',
    })
  })

  it('init refuses to ask, and says what it wants instead', async () => {
    const { device } = await world()
    expect(await piped(device, 'init', '--config', 'agent.toml', '--pin', 'pin.pem')).toEqual({
      code: 2,
      stdout: '',
      stderr: `certvend: init asks questions, and nobody is at a terminal here to answer them
hint: give it all: certvend init --server URL --token-file FILE, and --serial SERIAL unless it is the board's own
`,
    })
    expect(fs.existsSync(device.at('agent.toml'))).toBe(false)
  })

  it('init with everything given tries it and writes it, and never over another', async () => {
    const { lab, device } = await world()
    const flags = [...device.flags(), '--config', device.at('etc/agent.toml')]
    const { code, stdout, stderr } = await piped(device, 'init', ...flags)
    expect({ code, stdout }).toEqual({
      code: 0,
      stdout: ['vending-ca.pem', 'claim.token', 'agent.toml']
        .map((name) => `wrote ${device.at('etc', name)}\n`)
        .join(''),
    })
    expect(stderr).toContain('  SHA-256      ')
    expect(stderr).not.toContain(device.token)
    expect(lab.requests.every(({ method }) => method === 'GET')).toBe(true)
    const again = await piped(device, 'init', ...flags)
    expect(again).toMatchObject({ code: 2, stdout: '' })
    expect(again.stderr).toContain('agent.toml is there already\nhint: to replace it: --replace\n')
    expect(await piped(device, 'init', '--replace', ...flags)).toMatchObject({ code: 0 })
  })

  it('init with a pin that does not vouch writes nothing', async () => {
    const { lab, device } = await world()
    const { vendingUrl } = await lab.serveUnderSibling()
    const flags = [...device.flags({ server: vendingUrl }), '--config', device.at('agent.toml')]
    const { code, stderr } = await piped(device, 'init', ...flags)
    expect(code).toBe(3)
    expect(stderr).toMatch(
      /\ncertvend: no pin vouches for localhost:\d+ .*\nhint: .*\nmore: docs\/troubleshooting\.md#vending-tls\n$/,
    )
    expect(fs.readdirSync(device.path).sort()).toEqual(['pin.pem', 'token'])
  })
})
