/** Heartbeats: off by default, at their pace while a session is open, and never a reason to fail. */
import { CertvendError, renewalDue, type Session } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import type { MqttSettings } from '../src/config.ts'
import { beat } from '../src/heartbeat.ts'
import type { LogEvent } from '../src/log.ts'
import { movedClock } from './moved-clock.ts'

const start = new Date('2027-03-01T12:00:00Z')
const credential = {
  thingName: 'GW-1',
  certificateId: '0'.repeat(64),
  notBefore: new Date('2027-03-01T11:00:00Z'),
  issuedAt: start,
  notAfter: new Date('2028-02-29T12:00:00Z'),
}

/** Beats for an hour of the clock. */
async function beating(mqtt: MqttSettings, failure?: Error, stateDirectory = '/') {
  const over = new AbortController()
  const clock = movedClock(start, () => {
    if (clock.now().getTime() - start.getTime() >= 3_600_000) over.abort()
  })
  const sent: { topic: string; payload: string; qos: unknown }[] = []
  const events: LogEvent[] = []
  const session: Partial<Session> = {
    async publish(topic, payload, { qos } = {}) {
      if (failure) throw failure
      sent.push({ topic, payload: String(payload), qos })
    },
  }
  const log = (event: LogEvent) => events.push(event)
  const options = { mqtt, clock, log, stateDirectory, signal: over.signal }
  await beat(session as Session, credential, options)
  return { sent, events }
}

describe('a heartbeat', () => {
  it('is not sent unless asked for', async () => {
    expect((await beating({})).sent).toEqual([])
    expect((await beating({ heartbeatSeconds: 0 })).sent).toEqual([])
  })

  it('says how this machine is, at its pace, and asks for no acknowledgement', async () => {
    const { sent, events } = await beating({ heartbeatSeconds: 300 })
    expect(sent).toHaveLength(12)
    expect(sent[0]).toMatchObject({ topic: 'certvend/GW-1/heartbeat', qos: 0 })
    expect(JSON.parse(sent[1]?.payload ?? '')).toMatchObject({
      thingName: 'GW-1',
      time: '2027-03-01T12:05:00.000Z',
      onlineSince: '2027-03-01T12:00:00.000Z',
      certificateNotAfter: '2028-02-29T12:00:00.000Z',
      certificateRenewalDue: renewalDue(credential).toISOString(),
      uptimeSeconds: expect.any(Number),
      load1: expect.any(Number),
      memoryFreeBytes: expect.any(Number),
      diskFreeBytes: expect.any(Number),
    })
    expect(events).toEqual([])
  })

  it('goes to the configured topic, and leaves out a disk that does not answer', async () => {
    const mqtt = { heartbeatSeconds: 3600, heartbeatTopic: 'fleet/{thingName}/beat' }
    const { sent } = await beating(mqtt, undefined, '/nowhere')
    expect(sent.map(({ topic }) => topic)).toEqual(['fleet/GW-1/beat'])
    expect(sent[0]?.payload).not.toContain('disk')
  })

  it('that is refused is logged once, and not sent again in this session', async () => {
    const refusal = new CertvendError('ERR_REQUEST_REFUSED', 'the broker refused')
    const { events } = await beating({ heartbeatSeconds: 60 }, refusal)
    expect(events).toMatchObject([{ event: 'publish.refused', topic: 'certvend/GW-1/heartbeat' }])
  })

  it('of a session that ended is no event, and a defect is no silence', async () => {
    const lost = new CertvendError('ERR_SESSION_LOST', 'the connection ended')
    expect((await beating({ heartbeatSeconds: 60 }, lost)).events).toEqual([])
    await expect(beating({ heartbeatSeconds: 60 }, new RangeError('a defect'))).rejects.toThrow(
      'a defect',
    )
  })
})
