/** What long times do: a day online writes nothing, a week of failures fills no disk. */
import fs from 'node:fs'
import {
  CertvendError,
  type CredentialStore,
  createClaim,
  createVendingServer,
  openCredentialStore,
  type Session,
  type Transport,
} from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { type AgentOptions, runAgent } from '../src/agent.ts'
import { jsonLine, type LogEvent } from '../src/log.ts'
import { type Folder, makeFolder } from './folder.ts'
import { heldCredential } from './held-credential.ts'
import { movedClock } from './moved-clock.ts'
import { caPem } from './pins.ts'

const start = new Date('2027-03-01T12:00:00Z')
const day = 24 * 3600_000

/** Runs an agent until its clock has moved on by `forMs`. */
async function live(
  forMs: number,
  store: CredentialStore,
  more: Partial<AgentOptions>,
): Promise<{ events: LogEvent[]; bytes: number }> {
  const stop = new AbortController()
  const clock = movedClock(start, () => {
    if (clock.now().getTime() - start.getTime() >= forMs) stop.abort(new Error('enough'))
  })
  const events: LogEvent[] = []
  await runAgent({
    store,
    enrollment: () => ({
      server: createVendingServer({ url: 'https://vending.example.com', pins: caPem }),
      claim: createClaim({ deviceSerial: 'GW-1', token: 'planted-token' }),
    }),
    signal: stop.signal,
    log: (event) => events.push(event),
    clock,
    random: () => 0.5,
    ...more,
  })
  const bytes = events.reduce((sum, event) => sum + jsonLine(event, start).length + 1, 0)
  return { events, bytes }
}

/** When anything in the folder was last changed, in nanoseconds. */
const touched = (folder: Folder): string[] =>
  [folder.path, ...fs.readdirSync(folder.path, { recursive: true, encoding: 'utf8' })].map(
    (name) => {
      const { ctimeNs, mtimeNs } = fs.lstatSync(name.startsWith('/') ? name : folder.at(name), {
        bigint: true,
      })
      return `${name} ${mtimeNs} ${ctimeNs}`
    },
  )

const session = (): Session => ({
  thingName: 'GW-1',
  sessionPresent: false,
  publish: async () => {},
  subscribe: async () => {
    throw new Error('not asked for')
  },
  ended: new Promise(() => {}),
  close: async () => {},
})

describe('a day online', () => {
  it('writes nothing to disk and nothing to the log, and looks around 288 times', async () => {
    const folder = makeFolder()
    const store = await openCredentialStore(folder.path)
    const held = heldCredential(start)
    const holding: CredentialStore = {
      ...store,
      directory: store.directory,
      mended: [],
      current: () => held,
    }
    let turns = 0
    let before: string[] = []
    const onTurn = (): void => {
      turns += 1
      if (turns === 4) before = touched(folder) // it has settled
    }
    const transport: Transport = async () => session()
    const { events } = await live(day, holding, { transport, onTurn })
    expect(events.map(({ event }) => event).filter((name) => name !== 'session.closed')).toEqual([
      'credential.found',
      'session.open',
      'publish.acknowledged',
    ])
    expect(turns).toBeGreaterThan(280)
    expect(turns).toBeLessThan(300)
    expect(before).toHaveLength(2) // the directory and its lock
    expect(touched(folder)).toEqual(before)
  })
})

describe('a week in which everything fails', () => {
  const failing = (error: CertvendError) => async (): Promise<never> => {
    throw error
  }

  it.each([
    ['offline', new CertvendError('ERR_NETWORK', 'cannot reach it')],
    ['refused', new CertvendError('ERR_CLAIM_REFUSED', 'the claim was refused')],
    ['behind a captive portal', new CertvendError('ERR_REPLY_MALFORMED', 'HTML came back')],
    ['with a wrong clock', new CertvendError('ERR_CLOCK', 'the certificate is not valid yet')],
  ])('%s: at most 250 kB of log a day, one key, and it still asks', async (_, error) => {
    const folder = makeFolder()
    const store = await openCredentialStore(folder.at('state'))
    const { bytes, events } = await live(7 * day, store, { send: failing(error) })
    expect(bytes / 7).toBeLessThan(256_000)
    expect(events.filter(({ event }) => event === 'enroll.key')).toHaveLength(1)
    expect(events.filter(({ event }) => event === 'enroll.retry').length).toBeGreaterThan(500)
    expect(fs.readdirSync(folder.at('state/generations'))).toEqual(['0000000001'])
  })
})
