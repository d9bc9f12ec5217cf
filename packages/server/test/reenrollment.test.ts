/** Re-enrollment and retirement by a certificate that was shown; the handshake is `test/renewal.test.ts`. */
import { expect, it } from 'vitest'
import { hour } from '../src/clock.ts'
import { generateToken, hashToken } from '../src/tokens.ts'
import { type DeviceKey, makeDeviceKey } from './device.ts'
import { type Answer, type Device, type Machine, startMachine } from './machine.ts'

async function enrolled(): Promise<{ machine: Machine; device: Device; shown: string }> {
  const machine = await startMachine()
  const device = await machine.addDevice()
  const { reply } = await machine.enroll(device)
  return { machine, device, shown: reply.certificateId }
}

async function post(machine: Machine, path: string, body: unknown, shown?: string) {
  const request = new Request(`https://vending.example/v1/${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(body),
  })
  const context = { remoteAddress: '192.0.2.1', ...(shown && { shownCertificateId: shown }) }
  const response = await machine.handler(request, context)
  const reply = JSON.parse(await response.text())
  const problem = String(reply.type ?? '')
    .split(':')
    .at(-1)
  return { status: response.status, reply: reply as Answer['reply'], problem }
}

const reenroll = async (machine: Machine, deviceSerial: string, key: DeviceKey, shown?: string) =>
  post(machine, 'reenroll', { deviceSerial, csr: await key.csr(deviceSerial) }, shown)

it('gives another key another certificate, however often it is asked, and retires nothing yet', async () => {
  const { machine, device, shown } = await enrolled()
  const key = await makeDeviceKey()
  const first = await reenroll(machine, device.deviceSerial, key, shown)
  expect(first.status).toBe(200)
  expect(first.reply.certificateId).not.toBe(shown)
  const again = await reenroll(machine, device.deviceSerial, key, shown)
  expect(again.reply.certificateId).toBe(first.reply.certificateId)
  const held = await machine.registry.certificates(device.deviceSerial)
  expect(held.map(({ status }) => status)).toEqual(['ACTIVE', 'ACTIVE'])
  await machine.registry.confirm(first.reply.certificateId, machine.clock.now())
  expect((await machine.registry.findCertificate(shown))?.status).toBe('INACTIVE')
  expect(await machine.alarms()).toEqual([])
})

it('leaves the token worth nothing for another key, and raises the alarm as ever', async () => {
  const { machine, device, shown } = await enrolled()
  await reenroll(machine, device.deviceSerial, await makeDeviceKey(), shown)
  const thief = await machine.enroll(device, { key: await makeDeviceKey() })
  expect(thief.problem).toBe('claim-spent')
  expect(await machine.alarms()).toEqual(['claim-conflict'])
})

it('notes in the audit trail by what the key was bound', async () => {
  const { machine, device, shown } = await enrolled()
  await reenroll(machine, device.deviceSerial, await makeDeviceKey(), shown)
  const trail = await machine.registry.events({ limit: 100 })
  expect(trail.filter(({ name }) => name === 'claim-reserved').map(({ note }) => note)).toEqual([
    undefined,
    'by certificate',
  ])
})

it('leaves a claim alone that the operator opened, for it may be for new hardware', async () => {
  const { machine, device, shown } = await enrolled()
  const token = generateToken()
  const now = machine.clock.now()
  const openUntil = new Date(now.getTime() + 24 * hour)
  const stored = await hashToken(token, 'generated')
  await machine.registry.rearm(
    device.deviceSerial,
    { token: stored, openUntil, revoke: false },
    now,
  )
  const refused = await reenroll(machine, device.deviceSerial, await makeDeviceKey(), shown)
  expect([refused.status, refused.problem]).toEqual([409, 'claim-open'])
  const { status } = await machine.enroll({ ...device, token }, { key: await makeDeviceKey() })
  expect(status).toBe(200)
})

it.each([
  ['no certificate', undefined],
  ['a certificate that is not known', 'f'.repeat(64)],
])('refuses who shows %s', async (_, shown) => {
  const { machine, device } = await enrolled()
  const key = await makeDeviceKey()
  const refused = await reenroll(machine, device.deviceSerial, key, shown)
  expect([refused.status, refused.problem]).toEqual([401, 'certificate-refused'])
  expect(await machine.registry.certificates(device.deviceSerial)).toHaveLength(1)
})

it('refuses another device’s certificate, and one that is not in force', async () => {
  const { machine, device, shown } = await enrolled()
  const other = await machine.addDevice()
  await machine.enroll(other)
  const key = await makeDeviceKey()
  expect((await reenroll(machine, other.deviceSerial, key, shown)).problem).toBe(
    'certificate-refused',
  )
  await machine.registry.setCertificateStatus(shown, 'INACTIVE', machine.clock.now())
  expect((await reenroll(machine, device.deviceSerial, key, shown)).problem).toBe(
    'certificate-refused',
  )
})

it('refuses a disabled device, another device’s key, and a key whose certificate was revoked', async () => {
  const { machine, device, shown } = await enrolled()
  const other = await machine.addDevice()
  await machine.enroll(other)
  const { deviceSerial } = device
  expect((await reenroll(machine, deviceSerial, other.key, shown)).problem).toBe('key-in-use')
  expect(await machine.alarms()).toEqual(['key-conflict'])
  await machine.registry.setDisabled(deviceSerial, true, machine.clock.now())
  const key = await makeDeviceKey()
  expect((await reenroll(machine, deviceSerial, key, shown)).problem).toBe('device-disabled')
})

it('of two keys at once gives one its certificate, and the other its own afterwards', async () => {
  const { machine, device, shown } = await enrolled()
  // As of any device that renews: where none is known to work, two new ones would replace it.
  await machine.registry.confirm(shown, machine.clock.now())
  const keys = await Promise.all([makeDeviceKey(), makeDeviceKey()])
  const answers = await Promise.all(
    keys.map((key) => reenroll(machine, device.deviceSerial, key, shown)),
  )
  const statuses = answers.map(({ status }) => status)
  expect(statuses).toContain(200)
  for (const { status, problem } of answers)
    expect(status === 200 || ['claim-refused', 'claim-open'].includes(problem ?? '')).toBe(true)
  for (const key of keys)
    expect((await reenroll(machine, device.deviceSerial, key, shown)).status).toBe(200)
})

it('takes a certificate back that is given up, once and for all, and no other', async () => {
  const { machine, device, shown } = await enrolled()
  const { deviceSerial } = device
  const other = await machine.addDevice()
  expect((await post(machine, 'retire', { deviceSerial })).problem).toBe('certificate-refused')
  expect((await post(machine, 'retire', { deviceSerial: other.deviceSerial }, shown)).problem).toBe(
    'certificate-refused',
  )
  for (let round = 0; round < 2; round += 1)
    expect(await post(machine, 'retire', { deviceSerial }, shown)).toMatchObject({
      status: 200,
      reply: { certificateId: shown },
    })
  expect((await machine.registry.findCertificate(shown))?.status).toBe('REVOKED')
  expect((await reenroll(machine, deviceSerial, await makeDeviceKey(), shown)).problem).toBe(
    'certificate-refused',
  )
})
