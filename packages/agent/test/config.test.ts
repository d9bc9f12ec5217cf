import { spawnSync } from 'node:child_process'
import { describe, expect, it } from 'vitest'
import { nearest, parseConfig, readConfig } from '../src/config.ts'
import { makeFolder } from './folder.ts'

const file = '/etc/certvend/agent.toml'

function refusal(content: string): string {
  try {
    parseConfig(content, file)
  } catch (error) {
    const { message, hint, code } = error as Error & { hint?: string; code?: string }
    expect(code).toBe('ERR_CONFIGURATION')
    return hint === undefined ? message : `${message} / ${hint}`
  }
  throw new Error('it was accepted')
}

describe('agent.toml', () => {
  it('may be empty', () => {
    expect(parseConfig('', file)).toEqual({ mqtt: {} })
  })

  it('is two lines and a claim', () => {
    const content =
      'url = "https://vending.example.com"\npins = "ca.pem"\nserial = "GW-1"\ntoken_file = "/run/token"\n'
    expect(parseConfig(content, file)).toEqual({
      url: { value: 'https://vending.example.com', from: `${file}:1` },
      pins: [{ value: '/etc/certvend/ca.pem', from: `${file}:2` }],
      serial: { kind: 'literal', value: 'GW-1', from: `${file}:3` },
      tokenFile: { value: '/run/token', from: `${file}:4` },
      mqtt: {},
    })
  })

  it('takes file names relative to its own directory, and several pins', () => {
    const { pins, stateDirectory } = parseConfig(
      'pins = ["now.pem", "../next.pem"]\nstate_directory = "state"',
      file,
    )
    expect(pins?.map(({ value }) => value)).toEqual(['/etc/certvend/now.pem', '/etc/next.pem'])
    expect(stateDirectory?.value).toBe('/etc/certvend/state')
  })

  it('says whether the certificate is renewed by itself', () => {
    expect(parseConfig('renew = "when asked"', file)).toEqual({ renew: 'when asked', mqtt: {} })
  })

  it('has a table for MQTT', () => {
    const content = '[mqtt]\nkeep_alive = 300\nstatus_topic = ""\nretain_status = true\n'
    expect(parseConfig(content, file).mqtt).toEqual({
      keepAliveSeconds: 300,
      statusTopic: '',
      retainStatus: true,
    })
  })

  it.each([
    ['tokn_file = "x"', ':1: unknown key "tokn_file" / did you mean "token_file"?'],
    ['url = "x"\n\nServer = "x"', ':3: unknown key "Server" / did you mean "url"?'],
    ['tokenFile = "x"', ':1: unknown key "tokenFile" / did you mean "token_file"?'],
    ['pin = "x"', ':1: unknown key "pin" / did you mean "pins"?'],
    ['[mqqt]\nkeep_alive = 60', ':1: unknown key "mqqt" / did you mean "mqtt"?'],
    [
      '[mqtt]\nkeep-alive = 60',
      ':2: unknown key "mqtt.keep-alive" / did you mean "mqtt.keep_alive"?',
    ],
    ['mqtt.keepalive = 60', ':1: unknown key "mqtt.keepalive" / did you mean "mqtt.keep_alive"?'],
    [
      'colour = "red"',
      ':1: unknown key "colour" / the keys are url, pins, serial, token_file, dialect, endpoint, endpoint_anchors, thing_name, salt_file, token_formula, authorization_scheme, state_directory, metrics_file, renew, mqtt, consumers',
    ],
    ['url = 3', ':1: url: expected a string'],
    ['url = ""', ':1: url: must not be empty'],
    ['pins = []', ':1: pins: name at least one file'],
    ['pins = [3]', ':1: pins: expected a file name, or an array of file names'],
    ['pins = {}', ':1: pins: expected a file name, or an array of file names'],
    ['renew = true', ':1: renew: expected "automatically" or "when asked"'],
    ['renew = "never"', ':1: renew: expected "automatically" or "when asked"'],
    ['renewal = "when asked"', ':1: unknown key "renewal" / did you mean "renew"?'],
    ['mqtt = 3', ':1: mqtt: expected a table'],
    ['[mqtt]\nkeep_alive = 29', ':2: mqtt.keep_alive: must be 30 seconds or more'],
    ['[mqtt]\nkeep_alive = 1201', ':2: mqtt.keep_alive: must be 1200 seconds or less'],
    ['[mqtt]\nkeep_alive = 60.5', ':2: mqtt.keep_alive: expected whole seconds'],
    ['[mqtt]\nkeep_alive = "60"', ':2: mqtt.keep_alive: expected a number of seconds'],
    [
      '[mqtt]\nstatus_topic = "a/#"',
      ':2: mqtt.status_topic: a topic to publish to holds no + or #',
    ],
    ['[mqtt]\nretain_status = "yes"', ':2: mqtt.retain_status: expected true or false'],
    ['url = "x', ':1:9: control characters are not allowed in strings'],
    ['url = x', ':1:7: invalid value'],
    ['url = "a"\nurl = "b"', ':2:1: trying to redefine an already defined table or value'],
  ])('is refused with file and line: %j', (content, complaint) => {
    expect(refusal(`${content}\n`)).toBe(`${file}${complaint}`)
  })

  it.each([
    'token = "s3cret-token-value"',
    'token_file = s3cret-token-value',
    'tokenfile = "s3cret-token-value"',
    'serial = ["s3cret-token-value"]',
    '[mqtt]\nstatus_topic = "s3cret-token-value/#"',
  ])('never has its values repeated, one may be a token: %j', (content) => {
    expect(refusal(content)).not.toContain('s3cret')
  })

  it('says that a token lies in a file of its own', () => {
    expect(refusal('token = "abc"')).toBe(
      `${file}:1: unknown key "token" / the token lies in a file of its own, readable by this user only: token_file = "FILE"`,
    )
  })

  it('is refused when it is not there or not a file', () => {
    const folder = makeFolder()
    expect(() => readConfig(folder.at('none.toml'))).toThrow(
      `${folder.at('none.toml')} does not exist`,
    )
    const other = [folder.path, '/dev/zero']
    if (spawnSync('mkfifo', [folder.at('fifo.toml')]).status === 0)
      other.push(folder.at('fifo.toml'))
    for (const one of other)
      expect(() => readConfig(one)).toThrow(`the configuration ${one} is not a plain file`)
  })

  it('is refused unread when it is larger than anybody would write one', () => {
    const file = makeFolder().write('agent.toml', '#'.repeat(300_000))
    expect(() => readConfig(file)).toThrow(`the configuration ${file} is too large`)
  })
})

describe('the nearest known key', () => {
  const known = ['url', 'pins', 'serial', 'token_file']
  it.each([
    ['token_fiel', 'token_file'],
    ['TOKEN-FILE', 'token_file'],
    ['serials', 'serial'],
    ['server', 'url'],
    ['completely_different', undefined],
  ])('to %s is %s', (key, expected) => {
    expect(nearest(key, known)).toBe(expected)
  })
})
