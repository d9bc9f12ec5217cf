/** Which dialect a URL speaks, told without spending anything. */
import { probeVendingServer } from '@certvend/client/probe'
import { startLab } from '@certvend/server/lab'
import { describe, expect, it, onTestFinished } from 'vitest'
import { machines, oldDialects } from './contracts/machines.ts'
import { deviceCa, enter, token, vendingCa } from './contracts/reference.ts'
import { makeWorld } from './contracts/world.ts'
import { response, type Saying } from './dialect-attempt.ts'
import { http, listen } from './hostile-server.ts'
import { certify } from './pki.ts'
import { sendTo, serve } from './vending-machine.ts'

const url = 'https://vending.example/Prod'
const pins = vendingCa.certificate
const identity = await certify('localhost', { issuer: vendingCa, dns: ['localhost'] })

describe.each(oldDialects)('a vending machine that speaks %s', (dialect) => {
  const base = dialect === 'express-2017' ? 'https://vending.example' : url

  it('is recognised, and nothing was made, changed or used up by it', async () => {
    const world = makeWorld({ deviceCa, keys: 'EC' })
    const { deviceSerial } = enter(world, dialect)
    // A row without a token, which an old server would give to whoever sends none.
    world.rows.set('tokenless', {})
    const before = JSON.stringify([...world.rows])
    const send = sendTo(machines[dialect](world))
    const report = await probeVendingServer({ url: base, pins }, { send })
    expect(report.dialects, JSON.stringify(report)).toEqual([dialect])
    expect(JSON.stringify([...world.rows])).toBe(before)
    expect([world.certificates.size, world.things.size, world.policies.size]).toEqual([0, 0, 0])
    expect(world.rows.has(deviceSerial)).toBe(true)
  })

  it('is recognised by the whole URL that old firmware has, too', async () => {
    const path = {
      'awslabs-2018': '/getcert',
      'awslabs-2020': '/getcert',
      'iot-atlas': '/registration',
      'gateway-2021': '/register',
      'express-2017': '/',
    }[dialect]
    const send = sendTo(machines[dialect](makeWorld({ deviceCa })))
    const report = await probeVendingServer({ url: `${base}${path}`, pins }, { send })
    expect(report.dialects).toEqual([dialect])
  })
})

describe('a probe', () => {
  it('sends no serial, no token and no credential of any device', async () => {
    const sent: string[] = []
    await probeVendingServer(
      { url, pins },
      {
        send: async ({ method, url: target, headers, body = '' }) => {
          sent.push([method, target.href, JSON.stringify(headers), body].join(' '))
          return response({ status: 404, body: '' })
        },
      },
    )
    expect(sent).toHaveLength(5)
    expect(sent.filter((one) => one.startsWith('POST'))).toHaveLength(1)
    for (const one of sent) {
      expect(one).not.toMatch(/authorization/i)
      expect(one.replaceAll(/certvend-probe-[0-9a-f]{24}/g, '')).not.toMatch(/[0-9a-f]{24}/)
    }
  })

  it.each([
    ['shows its ping to nobody', { status: 401, body: '{"message":"Unauthorized"}' }],
    ['is of an earlier version', { status: 200, body: '{"response":"OK"}' }],
  ])('recognises a gateway-2021 that %s', async (_, answer) => {
    const report = await probeVendingServer(
      { url, pins },
      {
        send: async ({ url: target }) =>
          target.pathname.endsWith('/register')
            ? response(answer)
            : response({ status: 403, body: '{"message":"Missing Authentication Token"}' }),
      },
    )
    expect(report.dialects).toEqual(['gateway-2021'])
  })

  it('recognises our own server, and the old ones that it stands in for', async () => {
    const lab = await startLab({ legacy: [{ name: 'awslabs-2020' }, { name: 'gateway-2021' }] })
    onTestFinished(() => lab.close())
    const report = await probeVendingServer({ url: lab.vendingUrl, pins: lab.pins })
    expect(report.dialects, JSON.stringify(report)).toContain('certvend')
    expect(report.dialects).toContain('awslabs-2020')
  })

  const strangers: [string, Saying][] = [
    ['a web page', { type: 'text/html', body: '<html>Welcome</html>' }],
    ['null', { body: 'null' }],
    ['an empty object', { body: '{}' }],
    ['a 400 that says Bad Request', { status: 400, type: 'text/plain', body: 'Bad Request' }],
    ['API Gateway alone', { status: 403, body: '{"message":"Missing Authentication Token"}' }],
    ['API Gateway without such a stage', { status: 403, body: '{"message":"Forbidden"}' }],
    ['throttling', { status: 429, body: '{"message":"Too Many Requests"}' }],
    ['a function that failed', { body: '{"errorMessage":"boom"}' }],
  ]
  it.each(strangers)('recognises nothing in %s, and shows what was said', async (_, saying) => {
    const report = await probeVendingServer({ url, pins }, { send: async () => response(saying) })
    expect(report.dialects).toEqual([])
    expect(report.trials.map(({ status }) => status)).toEqual(
      Array.from({ length: 6 }, () => saying.status ?? 200),
    )
  })

  it('shows no secret that a server answers with', async () => {
    const send = sendTo(machines['awslabs-2018'](makeWorld({ deviceCa })))
    const secret = await certify('x')
    const report = await probeVendingServer(
      { url, pins },
      {
        send: async (request, limits) =>
          request.url.pathname.endsWith('/getcert')
            ? response({ body: JSON.stringify({ keyPair: { PrivateKey: secret.privateKey } }) })
            : send(request, limits),
      },
    )
    expect(JSON.stringify(report)).not.toContain(secret.privateKey.split('\n')[1]!.slice(0, 12))
  })

  it('trusts the pins and nobody else', async () => {
    const { port, close } = await serve(machines['awslabs-2020'](makeWorld({ deviceCa })), identity)
    onTestFinished(close)
    const there = `https://localhost:${port}`
    expect((await probeVendingServer({ url: there, pins })).dialects).toEqual(['awslabs-2020'])
    await expect(
      probeVendingServer({ url: there, pins: deviceCa.certificate }),
    ).rejects.toMatchObject({ code: 'ERR_SERVER_UNTRUSTED' })
    await expect(probeVendingServer({ url: there })).rejects.toThrow(TypeError)
  })

  it('asks for express-2017 alone where there is no TLS, and takes no pin for it', async () => {
    const { port, close } = await serve(machines['express-2017'](makeWorld({ deviceCa })))
    onTestFinished(close)
    const there = `http://localhost:${port}`
    const { dialects, trials } = await probeVendingServer({ url: there })
    expect({ dialects, asked: trials.length }).toEqual({ dialects: ['express-2017'], asked: 1 })
    await expect(probeVendingServer({ url: there, pins })).rejects.toThrow(TypeError)
  })

  it('is not led elsewhere, and gives up on a server that says nothing', async () => {
    const elsewhere = await listen(identity, [], (socket) => {
      socket.write(http(302, { location: 'https://localhost:1/' }))
    })
    onTestFinished(() => elsewhere.close())
    const led = await probeVendingServer({ url: `https://localhost:${elsewhere.port}`, pins })
    expect(led.dialects).toEqual([])
    const silent = await listen(identity, [], () => {})
    onTestFinished(() => silent.close())
    const { trials } = await probeVendingServer(
      { url: `https://localhost:${silent.port}`, pins },
      { deadlineMs: 200 },
    )
    expect(trials[0]?.answer).toContain('did not answer within 0.2 s')
    expect(JSON.stringify(trials)).not.toContain(token)
  })
})
