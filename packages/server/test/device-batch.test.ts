/** The operator's commands for many devices, and for the end of one. */
import { readFileSync } from 'node:fs'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { countSerials } from '../src/commands/device-batch.ts'
import { makeWorkplace, type Workplace } from './command.ts'
import { makeDeviceKey } from './device.ts'
import { send } from './https.ts'
import { knock } from './mqtt.ts'

let work: Workplace
let run: Workplace['run']
let device: Workplace['device']
beforeEach(() => {
  work = makeWorkplace()
  ;({ run, device } = work)
})
afterEach(() => work.remove())

describe('serials', () => {
  it('count up by the digits at their end, in the same width', () => {
    expect(countSerials('SN-008', 3)).toEqual(['SN-008', 'SN-009', 'SN-010'])
    expect(countSerials('0000000000000000000000000000001', 2).at(-1)).toMatch(/^0+2$/)
    for (const [first, count] of [
      ['SN-99', 2],
      ['SN', 1],
      ['SN.1', 2],
    ] as const)
      expect(() => countSerials(first, count), first).toThrow()
  })
})

describe('certvend-server device', () => {
  it('adds a batch, each with a token of its own, and leaves alone what is there', async () => {
    await device('add SN-0150')
    const { code, out, err } = await device('add SN-0001 --count 250 --policy devices')
    const lines = out.trim().split('\n')
    expect([code, lines[0], lines.length]).toEqual([3, 'serial,token', 250])
    expect(lines[1]).toMatch(/^SN-0001,[A-Za-z0-9_-]{32}$/)
    expect(new Set(lines.map((line) => line.split(',')[1])).size).toBe(250)
    expect(out).not.toContain('SN-0150')
    expect(err).toContain('certvend-server: SN-0150: serial taken\n')
    expect(err).toContain('added 249 of 250; their tokens are shown only now\n')
    const json = await device('add AB-1 --count 2 --json')
    expect(
      json.out
        .trim()
        .split('\n')
        .map((line) => Object.keys(JSON.parse(line))),
    ).toEqual(Array(2).fill(['deviceSerial', 'thingName', 'token']))
  })

  it('refuses a batch that cannot be counted, or whose devices would share something', async () => {
    for (const words of ['SN --count 5', 'SN-1 --count 20', 'SN-1 --count 2 --thing-name x'])
      expect((await device(`add ${words}`)).code, words).toBe(2)
    expect((await device('add SN-1 --count 0')).code).toBe(2)
    expect((await device('list')).code).toBe(0) // the registry is there, and empty
    expect((await device('export')).out.trim().split('\n')).toHaveLength(1)
  })

  it('lists by state and page by page, and exports without a token', async () => {
    const { out } = await device('add SN-01 --count 5')
    await device('disable SN-03')
    const serials = async (line: string) =>
      (await device(line)).out
        .trim()
        .split('\n')
        .slice(1)
        .map((row) => row.split(/[ ,]/)[0])
    expect(await serials('list --state disabled')).toEqual(['SN-03'])
    expect(await serials('list --state waiting --limit 2')).toEqual(['SN-01', 'SN-02'])
    expect(await serials('export --after SN-02')).toEqual(['SN-03', 'SN-04', 'SN-05'])
    const table = (await device('export')).out
    for (const line of out.trim().split('\n').slice(1))
      expect(table).not.toContain(line.split(',')[1])
    expect((await device('list --state nonsense')).code).toBe(2)
  })

  it('tells what happened, to one device or to all, from where one left off', async () => {
    await device('add SN-01 --count 3')
    await device('rearm SN-02')
    const lines = async (line: string) => (await device(line)).out.trim().split('\n')
    expect(await lines('audit SN-02')).toEqual([
      expect.stringMatching(/Z {2}device-added$/),
      expect.stringMatching(/Z {2}device-rearmed {2}new token$/),
    ])
    const all = (await lines('audit --json')).map((line) => JSON.parse(line))
    expect(all).toHaveLength(4)
    const [last] = await lines(`audit --after ${all[2].id}`)
    expect(last).toMatch(/Z {2}SN-02 {2}device-rearmed/)
    expect((await device('audit --alarms')).out).toBe('')
    expect((await device('show SN-02 --history')).out).toContain('device-rearmed  new token')
  })

  it('revokes, and the session at our own broker is gone', async () => {
    const lab = work.start(['lab', '--json', '--serial', 'SN-7'])
    try {
      const facts = JSON.parse(await lab.firstLine)
      const key = await makeDeviceKey()
      const token = readFileSync(facts.device.tokenFile, 'utf8').trim()
      const answer = await send(
        `${facts.vendingUrl}/v1/enroll`,
        readFileSync(facts.pinFile, 'utf8'),
        {
          method: 'POST',
          headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
          body: JSON.stringify({ deviceSerial: 'SN-7', csr: await key.csr('SN-7') }),
        },
      )
      const { certificateChain, certificateId, endpoint } = JSON.parse(answer.text)
      const session = await knock({
        host: endpoint.host,
        port: endpoint.port,
        anchors: endpoint.trustAnchors,
        clientId: 'SN-7',
        credential: { key, chain: certificateChain },
      })
      if (typeof session === 'string') throw new Error(`closed: ${session}`)
      const words = ['--data-dir', facts.dataDir, '--json']
      const wrong = ['device', 'revoke', 'SN-7', '--certificate', '0'.repeat(64), ...words]
      expect((await run(wrong)).code).toBe(3)
      const { code, out } = await run(['device', 'revoke', 'SN-7', ...words])
      expect([code, JSON.parse(out)]).toEqual([
        0,
        { deviceSerial: 'SN-7', status: 'REVOKED', certificates: [certificateId] },
      ])
      await session.closed
      const again = await run(['device', 'revoke', 'SN-7', ...words])
      expect([again.code, JSON.parse(again.out).certificates]).toEqual([0, []])
    } finally {
      await lab.stop('SIGTERM')
    }
  })
})
