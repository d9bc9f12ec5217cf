import { describe, expect, it } from 'vitest'
import { type Flags, resolveSettings } from '../src/settings.ts'
import { makeFolder } from './folder.ts'

const run = '/nonexistent/run'
const nowhere = { config: '/nonexistent/agent.toml', state: '/nonexistent/state', run }
const home = { HOME: '/home/somebody' }

const stateDirectory = async (
  flags: Flags,
  environment: NodeJS.ProcessEnv = home,
  places = nowhere,
): Promise<string> => (await resolveSettings(flags, environment, places)).stateDirectory

describe('the state directory', () => {
  it('is what --state-dir says, before everything else', async () => {
    const folder = makeFolder()
    const config = folder.write('agent.toml', 'state_directory = "/from/config"')
    const environment = { ...home, STATE_DIRECTORY: '/from/systemd' }
    expect(await stateDirectory({ stateDir: '/from/flag', config }, environment)).toBe('/from/flag')
    expect(await stateDirectory({ config }, environment)).toBe('/from/config')
    expect(await stateDirectory({}, environment)).toBe('/from/systemd')
  })

  it('is the gateway place when the gateway file configured this run, unless systemd names one', async () => {
    const folder = makeFolder()
    const places = { config: folder.write('agent.toml', ''), state: '/var/lib/gateway', run }
    expect(await stateDirectory({}, home, places)).toBe('/var/lib/gateway')
    const environment = { ...home, STATE_DIRECTORY: '/from/systemd' }
    expect(await stateDirectory({}, environment, places)).toBe('/from/systemd')
  })

  it('is not the gateway place when another file was named', async () => {
    const folder = makeFolder()
    const places = { config: folder.write('agent.toml', ''), state: '/var/lib/gateway', run }
    const config = folder.write('mine.toml', '')
    expect(await stateDirectory({ config }, { STATE_DIRECTORY: '/mine' }, places)).toBe('/mine')
  })

  it('is refused when nothing names an absolute one', async () => {
    await expect(stateDirectory({}, { STATE_DIRECTORY: 'relative' })).rejects.toMatchObject({
      code: 'ERR_CONFIGURATION',
      hint: 'name one: --state-dir DIR',
    })
  })

  it('is taken from the working directory when relative', async () => {
    expect(await stateDirectory({ stateDir: 'state' })).toBe(`${process.cwd()}/state`)
  })
})

describe('flags', () => {
  it('override the file, each by itself', async () => {
    const folder = makeFolder()
    const config = folder.write(
      'agent.toml',
      'url = "https://a"\nserial = "A"\npins = "a.pem"\ntoken_file = "a"',
    )
    const settings = await resolveSettings({ config, serial: 'B', pin: ['/b.pem'] }, home, nowhere)
    expect(settings).toMatchObject({
      url: { value: 'https://a', from: `${config}:1` },
      serial: { value: 'B', from: '--serial' },
      pins: [{ value: '/b.pem', from: '--pin' }],
      tokenFile: { value: folder.at('a'), from: `${config}:4` },
      configFile: config,
    })
  })

  it.each([
    [{ server: '' }, '--server is empty'],
    [{ serial: '' }, '--serial is empty'],
    [{ pin: [''] }, '--pin is empty'],
    [{ tokenFile: '' }, '--token-file is empty'],
    [{ stateDir: '' }, '--state-dir is empty'],
    [{ config: '' }, '--config is empty'],
  ])('are refused when empty: %j', async (flags, message) => {
    await expect(resolveSettings(flags, home, nowhere)).rejects.toThrow(message)
  })
})
