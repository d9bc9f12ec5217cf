/** How AWS IoT's answers are sorted; a small HTTP server stands for its control plane. */
import { createServer, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { second } from '../src/clock.ts'
import { type Iot, isRefusal, openIot } from '../src/issuer/iot-client.ts'
import { isIssuerBusy } from '../src/issuer/issuer.ts'
import { createRateGate, type RateGate } from '../src/rate-gate.ts'
import { movableClock } from './machine.ts'

let server: Server
let answer: (outgoing: ServerResponse) => void
let asked: number
let iot: Iot
let gate: RateGate
const clock = movableClock()
const signal = new AbortController().signal

beforeAll(() => {
  Object.assign(process.env, {
    AWS_ACCESS_KEY_ID: 'nobody',
    AWS_SECRET_ACCESS_KEY: 'nothing',
    AWS_EC2_METADATA_DISABLED: 'true',
  })
})
beforeEach(async () => {
  asked = 0
  server = createServer((incoming, outgoing) => {
    asked += 1
    incoming.resume().on('end', () => answer(outgoing))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const endpointUrl = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
  gate = createRateGate({ rates: { DescribeThing: 100 }, patienceMs: 0 })
  iot = openIot({ clock, gate, region: 'eu-west-1', endpointUrl })
})
afterEach(async () => {
  iot.close()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

const say = (status: number, type: string) => (outgoing: ServerResponse) => {
  outgoing.writeHead(status, { 'content-type': 'application/json', 'x-amzn-errortype': type })
  outgoing.end(JSON.stringify({ message: 'because' }))
}
const describeThing = (options = { signal }) =>
  iot.call('DescribeThing', { thingName: 'thing' }, options).catch((error: unknown) => error)

describe('what AWS IoT says', () => {
  it.each([
    ['is throttled', 400, 'ThrottlingException', 5 * second],
    ['comes too often', 429, 'TooManyRequestsException', 5 * second],
    ['fails', 500, 'InternalFailureException', 10 * second],
    ['is not available', 503, 'ServiceUnavailableException', 10 * second],
  ])('a call that %s is tried three times, and is for later', async (_, status, type, ms) => {
    answer = say(status, type)
    const error = await describeThing()
    expect(isIssuerBusy(error) && error.retryAfterMs).toBe(ms)
    expect(asked).toBe(3)
    expect(gate.ask('next', { DescribeThing: 1 }, clock.now()).admitted).toBe(ms === 10 * second)
  })

  it('a connection that breaks is for later', async () => {
    answer = (outgoing) => outgoing.destroy()
    expect(isIssuerBusy(await describeThing())).toBe(true)
  })

  it('an answer that does not come in time is for later', async () => {
    answer = () => undefined
    expect(isIssuerBusy(await describeThing({ signal: AbortSignal.timeout(100) }))).toBe(true)
  })

  it.each([
    [404, 'ResourceNotFoundException'],
    [409, 'ResourceAlreadyExistsException'],
    [403, 'AccessDeniedException'],
    [400, 'InvalidRequestException'],
  ])('a refusal (%i %s) is asked for once, and keeps its name', async (status, type) => {
    answer = say(status, type)
    const error = await describeThing()
    expect(isRefusal(error, type)).toBe(true)
    expect(isRefusal(error, 'Another')).toBe(false)
    expect(isIssuerBusy(error)).toBe(false)
    expect((error as Error).message).toBe(`AWS refused iot:DescribeThing: ${type}: because`)
    expect(asked).toBe(1)
  })

  it('nothing, when nobody asks any more', async () => {
    const reason = new Error('stopped')
    await expect(
      iot.call('DescribeThing', { thingName: 'thing' }, { signal: AbortSignal.abort(reason) }),
    ).rejects.toBe(reason)
    expect(asked).toBe(0)
  })

  it('an answer is an answer', async () => {
    answer = (outgoing) => outgoing.end(JSON.stringify({ thingName: 'thing', attributes: {} }))
    expect(await describeThing()).toMatchObject({ thingName: 'thing' })
  })
})
