import { describe, expect, it } from 'vitest'
import type { Handler } from '../src/handler.ts'
import { certificateId, makeDeviceCa } from '../src/issuer/local.ts'
import type { Result } from '../src/lambda/event.ts'
import { start } from '../src/lambda/start.ts'
import { createLambda, type Lambda, notOpen } from '../src/lambda.ts'
import type { LogEvent } from '../src/log.ts'
import { httpApiEvent, restApiEvent, type Sent } from './gateway-events.ts'
import { movableClock, startMachine } from './machine.ts'

const paths = ['/v1/enroll', '/v1/cacerts', '/healthz', '/getcert', '/shadow']
const formats = { 'an HTTP API': httpApiEvent, 'a REST API': restApiEvent }

/** A handler that says what it was asked. */
const echo: Handler = async (request, { remoteAddress, shownCertificateId }) =>
  Response.json({
    method: request.method,
    target: request.url.replace('https://vending.invalid', ''),
    headers: Object.fromEntries(request.headers),
    body: await request.text(),
    remoteAddress,
    shownCertificateId,
  })

const ask = async (lambda: Lambda, event: unknown): Promise<Result> =>
  (await lambda(event)) as Result

const echoed = async (event: unknown) =>
  JSON.parse((await ask(createLambda(echo, { paths }), event)).body)

describe.each(Object.entries(formats))('an event of %s', (_, eventOf) => {
  it('enrolls a device, and the repeated one gives the same certificate', async () => {
    const machine = await startMachine()
    const lambda = createLambda(machine.handler, { paths })
    const { deviceSerial, token, key } = await machine.addDevice('SN-1')
    const sent: Sent = {
      method: 'POST',
      path: '/v1/enroll',
      headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
      body: JSON.stringify({ deviceSerial, csr: await key.csr(deviceSerial) }),
    }
    const first = await ask(lambda, eventOf(sent))
    expect(first).toMatchObject({
      statusCode: 200,
      headers: { 'cache-control': 'no-store', 'content-type': 'application/json' },
    })
    const { certificateId } = JSON.parse(first.body)
    expect(certificateId).toMatch(/^[0-9a-f]{64}$/)
    const again = await ask(lambda, eventOf({ ...sent, base64: true }))
    expect(JSON.parse(again.body).certificateId).toBe(certificateId)
  })

  it('answers a known path behind any stage, base path or both', async () => {
    const machine = await startMachine()
    const lambda = createLambda(machine.handler, { paths })
    for (const prefix of ['', '/LATEST', '/Prod', '/cvm', '/cvm/v2', '//twice'])
      expect(await ask(lambda, eventOf({ path: `${prefix}/healthz` }))).toMatchObject({
        statusCode: 200,
      })
    for (const path of ['/', '/nothealthz', '/healthz/', '/healthz/x', '/LATEST', '/v1/enrol'])
      expect(await ask(lambda, eventOf({ path }))).toMatchObject({ statusCode: 404 })
  })

  it('keeps the query, with what is encoded in it and what is in it twice', async () => {
    const query = 'serialNumber=A%26B%3D%C3%BC&deviceToken=a%2Bb%20c&deviceToken=second'
    const { target } = await echoed(eventOf({ path: '/LATEST/getcert', query }))
    expect(target.startsWith('/getcert?')).toBe(true)
    expect([...new URL(`https://x${target}`).searchParams]).toEqual([
      ['serialNumber', 'A&B=ü'],
      ['deviceToken', 'a+b c'],
      ['deviceToken', 'second'],
    ])
  })

  it("brings API Gateway's word for the address, and no header can change it", async () => {
    const headers = { 'x-forwarded-for': '203.0.113.9', forwarded: 'for=203.0.113.9' }
    const { remoteAddress } = await echoed(
      eventOf({ path: '/healthz', headers, sourceIp: '198.51.100.20' }),
    )
    expect(remoteAddress).toBe('198.51.100.20')
  })

  it('brings the certificate of a domain with mutual TLS, and nothing that a header calls one', async () => {
    const { certificate } = await makeDeviceCa(movableClock())
    const headers = { 'x-amzn-mtls-clientcert': encodeURIComponent(certificate) }
    const shown = async (sent: Partial<Sent>) =>
      (await echoed(eventOf({ path: '/healthz', ...sent }))).shownCertificateId
    expect(await shown({ clientCertificate: certificate })).toBe(certificateId(certificate))
    expect(await shown({ headers })).toBeUndefined()
    expect(await shown({ clientCertificate: 'no certificate' })).toBeUndefined()
  })

  it('with a body that API Gateway encoded arrives as it was sent', async () => {
    const sent = { method: 'POST', path: '/v1/enroll', body: '{"é":"\\u0000"}' }
    for (const base64 of [false, true])
      expect((await echoed(eventOf({ ...sent, base64 }))).body).toBe(sent.body)
  })

  it('with a method or a header that no request may have is refused as malformed', async () => {
    const lambda = createLambda(echo, { paths })
    for (const sent of [
      { path: '/healthz', method: 'TRACE' },
      { path: '/healthz', headers: { 'not a name': 'x' } },
      { path: 'healthz' },
    ])
      expect(await ask(lambda, eventOf(sent))).toMatchObject({
        statusCode: 400,
        headers: { 'content-type': 'application/problem+json' },
      })
  })

  it('with a body beyond the limit is refused before it is parsed', async () => {
    const machine = await startMachine()
    const lambda = createLambda(machine.handler, { paths })
    const result = await ask(
      lambda,
      eventOf({
        method: 'POST',
        path: '/v1/enroll',
        headers: { 'content-type': 'application/json' },
        body: ' '.repeat(16 * 1024 + 1),
      }),
    )
    expect(result).toMatchObject({ statusCode: 413 })
  })

  it('leaves no token in the log, neither from a header nor from a query', async () => {
    const machine = await startMachine()
    const lambda = createLambda(machine.handler, { paths })
    const token = 'x'.repeat(32)
    await ask(lambda, eventOf({ path: '/getcert', query: `serialNumber=A&deviceToken=${token}` }))
    await ask(
      lambda,
      eventOf({
        path: '/v1/enroll',
        method: 'POST',
        headers: { authorization: `Bearer ${token}` },
      }),
    )
    expect(machine.events.length).toBeGreaterThan(1)
    expect(JSON.stringify(machine.events)).not.toContain(token)
  })
})

describe('the URL that the caller used', () => {
  it('has the stage of a REST API in it, which two old vending machines may differ by', async () => {
    const seen = async (stage: string) =>
      (await echoed(restApiEvent({ path: '/old', query: 'a=1', stage }))).target
    expect(await seen('LATEST')).toBe('/LATEST/old?a=1')
    expect(await seen('Prod')).toBe('/Prod/old?a=1')
  })

  it('is the path alone where the context has none, or another one', async () => {
    const event = restApiEvent({ path: '/old' })
    for (const path of [undefined, 7, '/elsewhere']) {
      const requestContext = { ...event.requestContext, path }
      expect((await echoed({ ...event, requestContext })).target).toBe('/old')
    }
  })
})

describe('an event without a proxy integration', () => {
  const direct = createLambda(echo, {
    paths,
    answerDirect: (fields) =>
      'serialNumber' in fields ? Promise.resolve({ raw: fields.serialNumber }) : undefined,
  })

  it('is answered raw', async () => {
    expect(await direct({ serialNumber: 'A', deviceToken: 'b' })).toEqual({ raw: 'A' })
  })

  it('stays one when its caller smuggled the context of another into it', async () => {
    const forged = { ...httpApiEvent({ path: '/healthz', sourceIp: '192.0.2.1' }) }
    expect(await direct({ serialNumber: 'A', ...forged })).toEqual({ raw: 'A' })
  })

  it('of a vending machine that nobody enabled is an error that repeats nothing of it', async () => {
    const event = { device_uid: 'UID-1', device_token: 'a-secret-token' }
    for (const lambda of [direct, createLambda(echo, { paths })])
      await expect(lambda(event)).rejects.toThrow(/none that it knows$/)
  })
})

describe('an event that is not of API Gateway', () => {
  it('is an error, whatever it is', async () => {
    const lambda = createLambda(echo, { paths })
    for (const event of [
      undefined,
      null,
      'text',
      7,
      [],
      {},
      { requestContext: null },
      { requestContext: {} },
      { requestContext: { http: {} } },
      { requestContext: { http: { method: 'GET' } }, rawPath: 7 },
      { requestContext: { identity: {} }, httpMethod: 'GET' },
      { source: 'aws.events', 'detail-type': 'Scheduled Event' },
    ])
      await expect(lambda(event)).rejects.toThrow(/none that it knows$/)
  })
})

describe('a function that starts', () => {
  const event = httpApiEvent({ path: '/healthz' })
  const failing = (times: number) => {
    const log: LogEvent[] = []
    let tried = 0
    const make = async () => {
      tried += 1
      if (tried <= times) throw new Error('no such table')
      return createLambda(echo, { paths })
    }
    return { make, log, tries: () => tried }
  }

  it('opens what it needs once, before it is called', async () => {
    const { make, tries } = failing(0)
    const lambda = await start(make, () => undefined)
    expect(tries()).toBe(1)
    for (let call = 0; call < 3; call += 1)
      expect(await ask(lambda, event)).toMatchObject({ statusCode: 200 })
    expect(tries()).toBe(1)
  })

  it('and cannot says so to the log, answers "later", and tries again with the next call', async () => {
    const { make, log } = failing(2)
    const lambda = await start(make, (line) => log.push(line), createLambda(notOpen, { paths }))
    expect(await ask(lambda, event)).toMatchObject({
      statusCode: 503,
      headers: { 'retry-after': '10', 'content-type': 'application/problem+json' },
    })
    expect(log).toEqual(
      [1, 2].map(() => ({
        level: 'error',
        event: 'failed',
        operation: 'start',
        reason: 'no such table',
      })),
    )
    expect(await ask(lambda, event)).toMatchObject({ statusCode: 200 })
  })

  it('and cannot fails where nobody waits for an answer, so that the event comes again', async () => {
    const lambda = await start(failing(9).make, () => undefined)
    await expect(lambda({})).rejects.toThrow('could not start')
  })
})
