import {
  CertvendError,
  type CredentialStore,
  type Session,
  type SessionEnd,
  type SessionOptions,
  type Transport,
} from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { runAgent } from '../src/agent.ts'
import type { MqttSettings } from '../src/config.ts'
import type { LogEvent } from '../src/log.ts'
import { heldCredential } from './held-credential.ts'

/** A store that holds a credential and is written to by nobody. */
function heldStore(): CredentialStore {
  const held = heldCredential(new Date())
  const store: Partial<CredentialStore> = {
    directory: '/nonexistent',
    mended: [],
    current: () => held,
    pending: () => undefined,
    lock: () => {},
    close: () => {},
  }
  return store as CredentialStore
}

type Publish = (topic: string, payload: string) => Promise<void>

interface Broker {
  readonly transport: Transport
  /** What happened at the broker, in order. */
  readonly seen: string[]
  /** With which options each session was opened. */
  readonly opened: SessionOptions[]
  /** Ends the session that is open now. */
  drop(): void
}

/**
 * A broker whose answer to a publish is `acknowledge`. Like the real sessions of `stayConnected`, its
 * own end with their signal, and a publish that is not acknowledged outlives its session.
 */
function openBroker(acknowledge: Publish = async () => {}, { closes = true } = {}): Broker {
  const seen: string[] = []
  const opened: SessionOptions[] = []
  let end = (_: SessionEnd): void => {}
  const transport: Transport = async (credential, options) => {
    opened.push(options)
    seen.push('open')
    let over = false
    const ended = new Promise<SessionEnd>((resolve) => {
      end = (how) => {
        over = true
        resolve(how)
      }
    })
    const close = async (): Promise<void> => {
      if (over) return
      seen.push('close')
      if (closes) end({ reason: 'closed' })
      await ended
    }
    options.signal?.addEventListener('abort', () => void close())
    const session: Partial<Session> = {
      thingName: credential.thingName,
      ended,
      close,
      async publish(topic, payload, { signal } = {}) {
        seen.push(`${topic} ${payload}`)
        const givenUp = new Promise<never>((_, reject) => {
          signal?.addEventListener('abort', () => reject(signal.reason))
        })
        await Promise.race([acknowledge(topic, String(payload)), givenUp])
      },
    }
    return session as Session
  }
  const drop = (): void =>
    end({ reason: 'lost', error: new CertvendError('ERR_SESSION_LOST', 'the connection ended') })
  return { transport, seen, opened, drop }
}

interface Running {
  readonly events: LogEvent[]
  /** Resolves when an event of that name was logged `times` times. */
  until(event: LogEvent['event'], times?: number): Promise<void>
  stop(): Promise<void>
  readonly ended: Promise<void>
}

function running(transport: Transport, mqtt: MqttSettings = {}, once = false): Running {
  const events: LogEvent[] = []
  const watchers = new Set<() => void>()
  const controller = new AbortController()
  const ended = runAgent({
    store: heldStore(),
    enrollment: () => {
      throw new Error('nobody is to be asked')
    },
    signal: controller.signal,
    random: () => 0,
    log(event) {
      events.push(event)
      for (const look of watchers) look()
    },
    mqtt,
    once,
    transport,
  })
  return {
    events,
    until: (name, times = 1) =>
      new Promise((resolve) => {
        const look = (): void => {
          if (events.filter(({ event }) => event === name).length >= times) resolve()
        }
        watchers.add(look)
        look()
      }),
    async stop() {
      controller.abort(new Error('stopped'))
      await ended
    },
    ended,
  }
}

const topic = 'certvend/GW-1/status'
const goodbye = `${topic} {"online":false,"thingName":"GW-1"}`

describe('presence', () => {
  it('is announced on every new session, and taken back before we leave', async () => {
    const broker = openBroker()
    const agent = running(broker.transport)
    await agent.until('publish.acknowledged')
    broker.drop()
    await agent.until('publish.acknowledged', 2)
    await agent.stop()
    expect(broker.seen).toEqual([
      'open',
      expect.stringMatching(
        `^${topic} {"online":true,"thingName":"GW-1","agent":".*","since":".*"}$`,
      ),
      'open',
      expect.stringContaining('"online":true'),
      goodbye,
      'close',
    ])
  })

  it('is left as a last will with the same words', async () => {
    const broker = openBroker()
    const agent = running(broker.transport, { retainStatus: true })
    await agent.until('session.open')
    await agent.stop()
    expect(broker.opened[0]?.will).toEqual({
      topic,
      payload: '{"online":false,"thingName":"GW-1"}',
      qos: 1,
      retain: true,
    })
  })

  it('goes to the configured topic, and nowhere when that is empty', async () => {
    const elsewhere = openBroker()
    const agent = running(elsewhere.transport, { statusTopic: 'fleet/{thingName}/{thingName}' })
    await agent.until('publish.acknowledged')
    await agent.stop()
    expect(elsewhere.seen[1]).toMatch(/^fleet\/GW-1\/GW-1 /)

    const silent = openBroker()
    const quiet = running(silent.transport, { statusTopic: '' })
    await quiet.until('session.open')
    await quiet.stop()
    expect(silent.seen).toEqual(['open', 'close'])
    expect(silent.opened[0]?.will).toBeUndefined()
  })

  it('that the broker refuses is logged, and the session stays', async () => {
    const broker = openBroker(async () => {
      throw new CertvendError('ERR_REQUEST_REFUSED', 'the broker refused the publish')
    })
    const agent = running(broker.transport)
    await agent.until('publish.refused')
    expect(broker.seen).not.toContain('close')
    await agent.stop()
  })
})

describe('a session', () => {
  it('is opened with the configured keep-alive', async () => {
    const broker = openBroker()
    const agent = running(broker.transport, { keepAliveSeconds: 300 })
    await agent.until('session.open')
    await agent.stop()
    expect(broker.opened[0]?.keepAliveSeconds).toBe(300)
  })

  it('that ends is told from one that does not come about', async () => {
    const broker = openBroker()
    let refusals = 0
    const agent = running((credential, options) => {
      if (broker.opened.length === 0 && refusals++ === 0)
        throw new CertvendError('ERR_SESSION_REFUSED', 'the door is shut')
      return broker.transport(credential, options)
    })
    await agent.until('session.open')
    broker.drop()
    await agent.until('session.open', 2)
    await agent.stop()
    expect(
      agent.events.map(({ event }) => event).filter((name) => /retry|lost/.test(name)),
    ).toEqual(['session.retry', 'session.lost'])
  })

  it('of --once ends after the first acknowledgement, and not before', async () => {
    let acknowledge = (): void => {}
    const broker = openBroker((_, payload) =>
      payload.includes('true')
        ? new Promise((resolve) => {
            acknowledge = resolve
          })
        : Promise.resolve(),
    )
    const agent = running(broker.transport, {}, true)
    await agent.until('session.open')
    broker.drop()
    await agent.until('session.open', 2)
    expect(agent.events.map(({ event }) => event)).not.toContain('publish.acknowledged')
    acknowledge()
    await agent.ended
    expect(broker.seen.slice(-2)).toEqual([goodbye, 'close'])
  })
})

describe('told to stop', () => {
  it('it does not wait for a broker that acknowledges nothing', async () => {
    const broker = openBroker(() => new Promise(() => {}))
    const agent = running(broker.transport)
    await agent.until('session.open')
    await agent.stop()
    expect(broker.seen.slice(-2)).toEqual([goodbye, 'close'])
  })

  it('it does not wait for a session that will not close', async () => {
    const broker = openBroker(undefined, { closes: false })
    const agent = running(broker.transport)
    await agent.until('publish.acknowledged')
    await agent.stop()
    expect(broker.seen.at(-1)).toBe('close')
  })

  it('it gives up a connection in the making', async () => {
    const agent = running((_, { signal }) => {
      return new Promise((_, reject) => {
        signal?.addEventListener('abort', () => reject(signal.reason))
      })
    })
    await agent.until('credential.found')
    await agent.stop()
  })

  it('it shows a defect of the transport instead of hiding it', async () => {
    const agent = running(() => Promise.reject(new RangeError('a defect')))
    await expect(agent.ended).rejects.toThrow('a defect')
  })
})
