/** What a person writes about an old vending machine, and every way to write it wrong. */
import { describe, expect, it } from 'vitest'
import { certvend } from './command.ts'
import { makeFolder } from './folder.ts'
import { caPem, notCaPem } from './pins.ts'

const token = '0a1b2c'

/** What `config check` makes of these lines, with pin, token, salt and anchors at hand. */
async function check(lines: readonly string[], ...flags: string[]) {
  const folder = makeFolder()
  folder.write('ca.pem', caPem)
  folder.write('not-ca.pem', notCaPem)
  folder.write('token', `${token}\n`)
  folder.write('salt', 'YOUR_SECRET_SALT\n')
  folder.write('open-salt', 'YOUR_SECRET_SALT\n', 0o644)
  folder.write(
    'agent.toml',
    ['serial = "DEVICE001"', 'state_directory = "state"', ...lines].join('\n'),
  )
  const argv = ['config', 'check', '--config', 'agent.toml', ...flags]
  const outcome = await certvend(argv, { cwd: folder.path })
  expect(outcome.stdout + outcome.stderr).not.toContain(token)
  expect(outcome.stdout + outcome.stderr).not.toContain('SECRET')
  expect(folder.list()).not.toContain('state')
  return outcome
}

const url = 'url = "https://API.example.com/Prod"'
const pins = 'pins = "ca.pem"'
const given = 'token_file = "token"'
const endpoint = 'endpoint = "a1b2-ats.iot.eu-west-1.amazonaws.com"'
const old = [url, pins, given, endpoint]

describe('an old vending machine in agent.toml', () => {
  it.each(['awslabs-2018', 'awslabs-2020', 'iot-atlas', 'gateway-2021', 'express-2017'])(
    'may be %s, whose tokens may be short',
    async (dialect) => {
      const { code, stdout, stderr } = await check([...old, `dialect = "${dialect}"`])
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).toMatch(new RegExp(`^dialect +${dialect}$`, 'm'))
    },
  )

  it('may be told by flags', async () => {
    const { code, stdout } = await check(
      [url, pins, given],
      '--dialect',
      'awslabs-2020',
      '--endpoint',
      'localhost:8883',
      '--endpoint-anchors',
      'ca.pem',
      '--thing-name',
      'thing-1',
    )
    expect(code).toBe(0)
    expect(stdout).toMatch(/^dialect +awslabs-2020$/m)
  })

  it('may be express-2017 over plain HTTP, without a pin', async () => {
    const plain = 'url = "http://10.0.0.1:3000"'
    const lines = [plain, given, endpoint, 'dialect = "express-2017"']
    expect(await check(lines)).toMatchObject({ code: 0 })
  })

  it('may have tokens made of a salt', async () => {
    const lines = [url, pins, 'dialect = "iot-atlas"', 'salt_file = "salt"']
    const { code, stdout } = await check([...lines, 'token_formula = "sha256"'])
    expect(code).toBe(0)
    expect(stdout).toMatch(/^token +made of the salt in .*\/salt \(sha256\)$/m)
  })

  it.each([
    ['no such dialect', [...old, 'dialect = "awslabs"'], 'agent.toml:7: no such dialect'],
    [
      'no endpoint',
      [url, pins, given, 'dialect = "awslabs-2020"'],
      'agent.toml:6: the dialect awslabs-2020 does not name the MQTT server: give its endpoint',
    ],
    [
      'an endpoint that is none',
      [url, pins, given, 'endpoint = "a b"', 'dialect = "awslabs-2020"'],
      'agent.toml:6: an endpoint is host, host:port',
    ],
    [
      'anchors without an endpoint',
      [url, pins, given, 'endpoint_anchors = "ca.pem"'],
      'agent.toml:6: anchors without the endpoint that they vouch for',
    ],
    [
      'anchors that are no CA',
      [...old, 'endpoint_anchors = "not-ca.pem"', 'dialect = "awslabs-2020"'],
      'is not a CA certificate',
    ],
    [
      'anchors that are not there',
      [...old, 'endpoint_anchors = "none.pem"', 'dialect = "awslabs-2020"'],
      'none.pem does not exist',
    ],
    [
      'an endpoint for our own protocol',
      [url, pins, given, endpoint],
      'agent.toml:6: the dialect certvend is given endpoint and thingName by the server',
    ],
    [
      'a thing name that is none',
      [...old, 'dialect = "awslabs-2020"', 'thing_name = "a/b"'],
      'thingName must be',
    ],
    [
      'a thing name where the server gives one',
      [...old, 'dialect = "iot-atlas"', 'thing_name = "x"'],
      'given thingName by the server',
    ],
    [
      'a scheme where there is none',
      [...old, 'dialect = "iot-atlas"', 'authorization_scheme = "X"'],
      'belongs to the dialect gateway-2021',
    ],
    [
      'a salt without its formula',
      [url, pins, 'dialect = "iot-atlas"', 'salt_file = "salt"'],
      'which formula makes the token is not said',
    ],
    [
      'a formula that is none',
      [url, pins, 'dialect = "iot-atlas"', 'salt_file = "salt"', 'token_formula = "md5"'],
      'which formula makes the token is not said',
    ],
    [
      'a formula without its salt',
      [url, pins, given, 'token_formula = "sha256"'],
      'a formula without a salt',
    ],
    [
      'a salt that others may read',
      [url, pins, 'dialect = "iot-atlas"', 'salt_file = "open-salt"', 'token_formula = "sha256"'],
      'is open to other users',
    ],
    [
      'plain HTTP for another dialect',
      ['url = "http://10.0.0.1"', pins, given, endpoint, 'dialect = "awslabs-2020"'],
      'must start with https://',
    ],
    [
      'plain HTTP without a dialect',
      ['url = "http://10.0.0.1"', pins, given],
      'must start with https://',
    ],
    [
      'a pin for plain HTTP',
      ['url = "http://10.0.0.1"', pins, given, endpoint, 'dialect = "express-2017"'],
      'no pin can vouch for an http:// URL',
    ],
    [
      'no pin for express-2017 over HTTPS',
      [url, given, endpoint, 'dialect = "express-2017"'],
      'no pin',
    ],
    ['a short token for our own protocol', [url, pins, given], 'holds no token'],
  ])('is refused with %s', async (_, lines, complaint) => {
    const { code, stdout, stderr } = await check(lines)
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toContain(complaint)
    expect(stderr.split('\n')[0]).toMatch(/^certvend: .*[^.]$/)
  })
})
