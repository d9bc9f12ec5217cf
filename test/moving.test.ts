/** A device whose network changes under it, in namespaces of this machine. */
import { describe, expect, it } from 'vitest'
import { cable, makeNamespace, namespacesMissing, nextJson } from './namespaces.ts'
import { type Certified, certify } from './pki.ts'

const skipping = namespacesMissing ? ` (skipped: ${namespacesMissing})` : ''

interface Given {
  readonly certificate: string
  readonly privateKey: string
  readonly anchors: string
  readonly host: string
  readonly port: number
  /** What `ip` does to the network: at a step of each script's choosing. */
  readonly change: readonly string[][]
}

const opening = `
  import { spawnSync } from 'node:child_process'
  import { text } from 'node:stream/consumers'
  import { createCredential, stayConnected, systemClock } from '@certvend/client'
  const given = JSON.parse(await text(process.stdin))
  const { certificate, privateKey, anchors, host, port } = given
  const endpoint = { host, port, trustAnchors: [anchors] }
  const credential = createCredential({ thingName: 'device-1', certificateChain: certificate, privateKey, endpoint })
  const change = () => {
    for (const args of given.change) {
      const { status, stderr } = spawnSync('ip', args)
      if (status !== 0) throw new Error(String(stderr))
    }
  }
  const tell = (outcome) => console.log(JSON.stringify(outcome))
`

/** Moves while a session is open; the address from which each session comes is what the server sees. */
const movingOnline = `${opening}
  const ends = []
  const began = performance.now()
  let sessions = 0
  for await (const session of stayConnected(credential, { keepAliveSeconds: 1, spreadMs: 20 })) {
    if (++sessions === 1) change()
    else break
    const end = await session.ended
    ends.push(end.error?.message)
  }
  tell({ sessions, ends, tookMs: performance.now() - began })
`

/** Moves in the middle of a wait of minutes, before a server that cannot be reached. */
const movingWaiting = `${opening}
  const waits = []
  const stop = new AbortController()
  const attempts = []
  let now = Date.now()
  const clock = {
    now: () => new Date(now),
    async wait(ms, signal) {
      now += ms
      waits.push(ms)
      if (waits.filter((one) => one === 30_000).length === 3 && !waits.changed) {
        waits.changed = waits.length
        change()
      }
      await new Promise(setImmediate)
      signal?.throwIfAborted()
    },
  }
  const onRetry = ({ waitMs }) => {
    attempts.push(waitMs)
    if (waits.changed && attempts.done === undefined) attempts.done = attempts.length
    else if (attempts.done) stop.abort()
  }
  const backoff = { baseMs: 200_000, capMs: 400_000 }
  for await (const _ of stayConnected(credential, { clock, signal: stop.signal, random: () => 0.9, backoff, onRetry }));
  tell({ planned: attempts[0], before: waits.slice(0, waits.changed), after: waits.slice(waits.changed, waits.changed + 1) })
`

describe.skipIf(namespacesMissing)(`a device that changes its network${skipping}`, () => {
  async function device(): Promise<{ ca: Certified; mqttCa: Certified; server: Certified }> {
    const [ca, mqttCa] = await Promise.all([
      certify('Device CA', { ca: true }),
      certify('MQTT CA', { ca: true }),
    ])
    const server = await certify('broker', { issuer: mqttCa, ip: ['10.77.4.2'] })
    return { ca, mqttCa, server }
  }

  it('finds at the keep-alive that its session has lost its address, and is back from the new one', async () => {
    const { ca, mqttCa, server } = await device()
    const here = makeNamespace('device')
    const far = makeNamespace('server')
    const [name] = cable([here, '10.77.4.1/24'], [far, '10.77.4.2/24'])
    const broker = far.start(process.execPath, [
      '--input-type=module',
      '-e',
      `
        import tls from 'node:tls'
        const { cert, key } = ${JSON.stringify({ cert: server.certificate, key: server.privateKey })}
        // Takes every client, and answers CONNECT and PINGREQ, as long as it hears anything.
        const server = tls.createServer({ cert, key, requestCert: true, rejectUnauthorized: false }, (socket) => {
          socket.on('error', () => {})
          socket.on('data', (bytes) => {
            if (bytes[0] === 0x10) socket.write(Buffer.from([0x20, 2, 0, 0]))
            if (bytes[0] === 0xc0) socket.write(Buffer.from([0xd0, 0]))
          })
        })
        server.listen(8883, '10.77.4.2', () => console.log('true'))
      `,
    ])
    await nextJson(broker)
    const own = await certify('device-1', { issuer: ca })
    const outcome = await here.script<{ sessions: number; ends: string[]; tookMs: number }>(
      movingOnline,
      {
        certificate: own.certificate,
        privateKey: own.privateKey,
        anchors: mqttCa.certificate,
        host: '10.77.4.2',
        port: 8883,
        change: [
          ['address', 'del', '10.77.4.1/24', 'dev', name],
          ['address', 'add', '10.77.4.3/24', 'dev', name],
        ],
      } satisfies Given,
    )
    expect(outcome.sessions).toBe(2)
    expect(outcome.ends).toEqual(['this device left the network it connected from'])
    // TCP alone would have sent into the void for a quarter of an hour.
    expect(outcome.tookMs).toBeLessThan(10_000)
  })

  it('waits no longer than two seconds when an address comes in the middle of a wait of minutes', async () => {
    const { ca, mqttCa } = await device()
    const here = makeNamespace('device')
    const far = makeNamespace('server')
    const [name] = cable([here, '10.77.5.1/24'], [far, '10.77.5.2/24'])
    const own = await certify('device-1', { issuer: ca })
    const { planned, before, after } = await here.script<
      Record<'before' | 'after', number[]> & { planned: number }
    >(movingWaiting, {
      certificate: own.certificate,
      privateKey: own.privateKey,
      anchors: mqttCa.certificate,
      host: '10.77.5.2',
      port: 8883, // nobody listens
      change: [['address', 'add', '10.77.5.3/24', 'dev', name]],
    } satisfies Given)
    expect(planned).toBe(180_000)
    expect(before).toEqual([30_000, 30_000, 30_000])
    expect(after).toEqual([1800])
  })
})
