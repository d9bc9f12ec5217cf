import { readFileSync } from 'node:fs'
import { type AddressInfo, createServer } from 'node:net'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { createMetrics, createWatchDoor } from '../src/metrics.ts'
import { makeWorkplace } from './command.ts'
import { send } from './https.ts'
import { startMachine } from './machine.ts'

const read = async (door: ReturnType<typeof createWatchDoor>, path: string, method = 'GET') => {
  const request = new Request(`http://127.0.0.1${path}`, { method })
  const response = await door(request, { remoteAddress: '127.0.0.1' })
  return { status: response.status, text: await response.text() }
}

describe('the metrics', () => {
  it('count what the log tells, and name no device and no address', async () => {
    const metrics = createMetrics(() => new Map([['iot-atlas', { accepted: 3, refused: 1 }]]))
    const machine = await startMachine()
    const handler = machine.another({ log: metrics.counting(() => undefined) })
    const device = await machine.addDevice('SN-SECRET')
    await machine.enroll(device, { through: handler })
    await machine.enroll(device, { through: handler, token: 'another-token' })
    await machine.send('/SN-SECRET', {}, handler)
    const text = await metrics.text()
    for (const line of [
      'certvend_requests_total{operation="enroll",status="200"} 1',
      'certvend_requests_total{operation="enroll",status="401"} 1',
      'certvend_requests_total{operation="unknown",status="404"} 1',
      'certvend_certificates_handed_out_total 1',
      'certvend_refusals_total{problem="claim-refused"} 1',
      'certvend_request_duration_seconds_count{operation="enroll"} 2',
      'certvend_legacy_requests{dialect="iot-atlas",outcome="accepted"} 3',
    ])
      expect(text.split('\n')).toContain(line)
    expect(text).not.toContain('SN-SECRET')
    expect(text).not.toContain('192.0.2')
  })

  it('count alarms and failures', async () => {
    const metrics = createMetrics(() => new Map())
    const log = metrics.counting(() => undefined)
    log({ event: 'claim-conflict', level: 'alarm' })
    log({ event: 'failed', level: 'error', operation: 'enroll' })
    const lines = (await metrics.text()).split('\n')
    expect(lines).toContain('certvend_alarms_total{event="claim-conflict"} 1')
    expect(lines).toContain('certvend_failures_total{operation="enroll"} 1')
  })
})

describe('the door for those who watch', () => {
  it('is ready while the registry answers, and alive in any case', async () => {
    let isReady: () => Promise<boolean> = async () => true
    const door = createWatchDoor(
      createMetrics(() => new Map()),
      () => isReady(),
    )
    expect(await read(door, '/readyz')).toEqual({ status: 200, text: 'ready\n' })
    for (const unready of [async () => false, () => Promise.reject(new Error('gone'))]) {
      isReady = unready
      expect((await read(door, '/readyz')).status).toBe(503)
      expect((await read(door, '/healthz')).status).toBe(200)
    }
    expect((await read(door, '/v1/enroll')).status).toBe(404)
    expect((await read(door, '/metrics', 'POST')).status).toBe(405)
  })

  it('stands beside the vending machine, on loopback, and not at its own door', async () => {
    const work = makeWorkplace()
    const free = createServer().listen(0, '127.0.0.1')
    await new Promise((resolve) => free.once('listening', resolve))
    const { port } = free.address() as AddressInfo
    await new Promise((resolve) => free.close(resolve))
    const url = `http://127.0.0.1:${port}`
    const server = work.start(['serve', '--port', '0', '--watch-port', String(port)])
    try {
      const listening = JSON.parse(await server.firstLine)
      const text = await (await fetch(`${url}/metrics`)).text()
      expect(text).toMatch(/^certvend_server_certificate_expiry_timestamp_seconds 1\d+$/m)
      expect((await fetch(`${url}/readyz`)).status).toBe(200)
      const pin = readFileSync(join(work.directory, 'certvend-data', 'tls', 'pin.pem'), 'utf8')
      expect((await send(`${listening.url}/metrics`, pin, {})).status).toBe(404)
    } finally {
      expect(await server.stop('SIGTERM')).toBe(0)
      work.remove()
    }
  })
})
