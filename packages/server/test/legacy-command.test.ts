/** The old dialects from the command line: `serve --legacy`, `fleet`, and devices of a fleet. */

import { readFileSync } from 'node:fs'
import { request } from 'node:http'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { makeWorkplace, type Workplace } from './command.ts'
import { send } from './https.ts'
import { belongTogether, requests, vended } from './legacy.ts'

let workplace: Workplace
beforeEach(() => {
  workplace = makeWorkplace()
})
afterEach(() => workplace.remove())

const serve = ['serve', '--port', '0', '--listen', '127.0.0.1']

describe('certvend-server serve --legacy', () => {
  it('stands in for an old vending machine, and for no other', async () => {
    const { start, device, directory } = workplace
    const server = start([
      ...serve,
      '--legacy',
      'awslabs-2020',
      '--legacy',
      'express-2017',
      '--legacy-http-port',
      '0',
    ])
    try {
      const { url } = JSON.parse(await server.firstLine)
      const pin = readFileSync(join(directory, 'certvend-data', 'tls', 'pin.pem'), 'utf8')
      const token = (await device('add SN-1')).out.trim()
      const asks = { deviceSerial: 'SN-1', token }
      const got = await send(requests['awslabs-2020'](asks, url).url, pin)
      expect(belongTogether(vended('awslabs-2020', got.text))).toBe(true)
      expect((await send(`${url}/dev/registration`, pin, { method: 'POST' })).status).toBe(404)
      const plain = /express-2017 at (http:\/\/127\.0\.0\.1:\d+), without TLS/.exec(
        server.err(),
      )![1]!
      const said = await new Promise<string>((resolve, reject) => {
        const outgoing = request(plain, (incoming) => void text(incoming).then(resolve, reject))
        outgoing.on('error', reject).end()
      })
      expect(said).toBe('Access Deny!')
    } finally {
      expect(await server.stop('SIGTERM')).toBe(0)
    }
    const output = [...server.lines, server.err()].join('\n')
    expect(output).toContain('"event":"deprecated","operation":"awslabs-2020"')
    expect(output).not.toContain('deviceToken')
  })

  it.each([
    [['--legacy', 'awslabs'], 'not an old dialect'],
    [['--legacy', 'awslabs-2020=Prod'], 'not an old dialect'],
    [['--legacy', 'awslabs-2020', '--legacy', 'awslabs-2018'], 'have one URL'],
    [['--legacy', 'iot-atlas=/a', '--legacy', 'iot-atlas=/a'], 'have one URL'],
  ])('refuses %j as usage', async (words, said) => {
    const { code, err } = await workplace.run([...serve, ...words])
    expect(code).toBe(2)
    expect(err).toContain(said)
    expect(err).toContain('hint: ')
  })

  it('says that the door without TLS is taken', async () => {
    const words = [...serve, '--legacy', 'express-2017', '--legacy-http-port']
    const first = workplace.start([...words, '0'])
    await first.firstLine
    const port = /127\.0\.0\.1:(\d+), without/.exec(first.err())![1]!
    const second = await workplace.run([...words, port, '--data-dir', 'other'])
    await first.stop('SIGTERM')
    expect([second.code, second.err]).toEqual([1, expect.stringContaining('EADDRINUSE')])
  })

  it('warns of a door without TLS that others can reach', async () => {
    const server = workplace.start([
      ...serve,
      '--legacy',
      'express-2017',
      '--legacy-http-port',
      '0',
      '--legacy-http-listen',
      '0.0.0.0',
    ])
    await server.firstLine
    await server.stop('SIGTERM')
    expect(server.err()).toContain('warning: whoever is on that network reads private keys')
  })
})

describe('certvend-server fleet', () => {
  it('prints the token of a new fleet once, which opens the devices of that fleet', async () => {
    const { run, device, start, directory } = workplace
    const added = await run(['fleet', 'add', 'pumps'])
    expect([added.code, added.out]).toEqual([0, expect.stringMatching(/^[\w-]{32}\n$/)])
    const row = await device('add PUMP-1 --fleet pumps')
    expect([row.code, row.out]).toEqual([0, ''])
    expect((await device('show PUMP-1')).out).toMatch(/fleet: +pumps\ntoken: +none\n/)
    const server = start([...serve, '--legacy', 'gateway-2021'])
    try {
      const { url } = JSON.parse(await server.firstLine)
      const pin = readFileSync(join(directory, 'certvend-data', 'tls', 'pin.pem'), 'utf8')
      const ask = async () => {
        const made = requests['gateway-2021'](
          { deviceSerial: 'PUMP-1', token: added.out.trim() },
          url,
        )
        const headers = Object.fromEntries(made.headers)
        return send(made.url, pin, { method: 'POST', headers, body: await made.text() })
      }
      expect(belongTogether(vended('gateway-2021', (await ask()).text))).toBe(true)
      expect((await ask()).status).toBe(409)
      const rearmed = await device('rearm PUMP-1')
      expect([rearmed.code, rearmed.out]).toEqual([0, ''])
      expect((await ask()).status).toBe(200)
    } finally {
      await server.stop('SIGTERM')
    }
  })

  it('lists fleets without their tokens, and removes them', async () => {
    const { run } = workplace
    const { token } = JSON.parse((await run(['fleet', 'add', 'pumps', '--json'])).out)
    await run(['fleet', 'add', 'gates'])
    const listed = await run(['fleet', 'list'])
    expect(listed.out.split('\n').map((line) => line.split(' ')[0])).toEqual([
      'FLEET',
      'gates',
      'pumps',
      '',
    ])
    expect(listed.out).not.toContain(token)
    const removed = await run(['fleet', 'remove', 'pumps', '--json'])
    expect(JSON.parse(removed.out)).toEqual({ fleet: 'pumps', removed: true })
    const [left] = (await run(['fleet', 'list', '--json'])).out.split('\n')
    expect(JSON.parse(left!)).toMatchObject({ fleet: 'gates' })
  })

  it('says what is wrong and what to do about it', async () => {
    const { run, device } = workplace
    expect((await run(['fleet', 'list'])).code).toBe(2)
    await run(['fleet', 'add', 'pumps'])
    const all: [string[], number, string][] = [
      [['fleet', 'add', 'pumps'], 3, 'there is a fleet pumps already'],
      [['fleet', 'add', 'a/b'], 2, 'a fleet has 1 to 64'],
      [['fleet', 'remove', 'gates'], 3, 'there is no fleet gates'],
      [['fleet'], 2, ''],
    ]
    for (const [words, code, said] of all) {
      const result = await run(words)
      expect([result.code, result.out], words.join(' ')).toEqual([code, ''])
      expect(result.err).toContain(said)
    }
    const unknown = await device('add SN-1 --fleet gates')
    expect([unknown.code, unknown.err]).toEqual([
      3,
      expect.stringContaining('there is no fleet gates'),
    ])
  })
})
