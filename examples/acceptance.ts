/**
 * Acceptance: one command that tries a credential against a real endpoint, step by step.
 *
 *     node acceptance.js ENDPOINT STATE_DIRECTORY
 *     node acceptance.js ENDPOINT THING_NAME CERTIFICATE.pem PRIVATE-KEY.pem
 *
 * Prints `pass`, `FAIL`, `note` or `skip` per step and exits with 1 if one failed. It publishes and
 * subscribes below `certvend/THING_NAME/`, and connects no more than once a second, which is what IoT
 * Core takes per client id. See docs/iot-core-acceptance.md.
 */
import { setTimeout as pause } from 'node:timers/promises'
import {
  type Credential,
  connect,
  isCertvendError,
  type Session,
  type SessionOptions,
  stayConnected,
} from '@certvend/client'
import { main, readIdentity } from './identity.ts'

/** What a step ends with, unless it throws: nothing when it passed, or why there is no verdict. */
type Outcome = undefined | { readonly note: string } | { readonly skip: string }

interface Step {
  readonly title: string
  /** The steps after it make no sense when it fails. */
  readonly needed?: true
  run(credential: Credential): Promise<Outcome>
}

const patience = { deadlineMs: 15_000 } as const

async function open(credential: Credential, options: SessionOptions = {}): Promise<Session> {
  await pause(1100)
  return connect(credential, { ...patience, ...options })
}

function holds(condition: boolean, otherwise: string): void {
  if (!condition) throw new Error(otherwise)
}

/** What `work` resolves to, within ten seconds. */
async function soon<T>(work: Promise<T>, otherwise: string): Promise<T> {
  const over = new AbortController()
  const late = pause(10_000, undefined, { signal: over.signal }).then(() => {
    throw new Error(otherwise)
  })
  late.catch(() => {})
  try {
    return await Promise.race([work, late])
  } finally {
    over.abort()
  }
}

async function roundTrip(credential: Credential, options: SessionOptions): Promise<undefined> {
  const session = await open(credential, options)
  const topic = `certvend/${credential.thingName}/acceptance`
  const messages = await soon(session.subscribe(topic), `no answer to SUBSCRIBE ${topic}`)
  const words = `acceptance ${Math.random()}`
  await soon(session.publish(topic, words), `no PUBACK for ${topic}`)
  const heard = async (): Promise<string> => {
    for await (const { payload } of messages) return Buffer.from(payload).toString()
    throw new Error('the session ended before the message came back')
  }
  holds((await soon(heard(), 'the message did not come back')) === words, 'another message came')
  await session.close()
  return undefined
}

const steps: readonly Step[] = [
  {
    title: 'the certificate is valid now, by this device’s clock',
    async run({ notBefore, notAfter }) {
      const now = new Date()
      holds(now >= notBefore, `it begins on ${notBefore.toISOString()}`)
      holds(now <= notAfter, `it ended on ${notAfter.toISOString()}`)
      return undefined
    },
  },
  {
    title: 'a session opens: the server is vouched for, and lets this certificate in',
    needed: true,
    async run(credential) {
      await (await open(credential)).close()
      return undefined
    },
  },
  {
    title: 'a message goes out and comes back (MQTT 3.1.1, QoS 1)',
    run: (credential) => roundTrip(credential, {}),
  },
  {
    title: 'the same over MQTT 5',
    async run(credential) {
      try {
        return await roundTrip(credential, { protocol: '5' })
      } catch (error) {
        // Unacceptable protocol version, in either version's words.
        if (
          isCertvendError(error, 'ERR_SESSION_REFUSED') &&
          /CONNACK (1|132)\b/.test(error.message)
        )
          return { skip: 'the server does not speak it' }
        throw error
      }
    },
  },
  {
    title: 'the same over port 443 with ALPN',
    async run(credential) {
      const { endpoint } = credential
      if (!/\.amazonaws\.com(\.cn)?$/.test(endpoint.host))
        return { skip: 'only IoT Core is known to listen there' }
      return roundTrip(
        { ...credential, endpoint: { ...endpoint, port: 443, alpn: 'x-amzn-mqtt-ca' } },
        {},
      )
    },
  },
  {
    title: 'the server keeps a session that is not clean',
    async run(credential) {
      const first = await open(credential, { clean: false })
      await soon(first.subscribe(`certvend/${credential.thingName}/kept`), 'no answer to SUBSCRIBE')
      await first.close()
      const second = await open(credential, { clean: false })
      const { sessionPresent } = second
      await second.close()
      await (await open(credential)).close() // clean: leaves nothing behind
      holds(sessionPresent, 'it was forgotten')
      return undefined
    },
  },
  {
    title: 'a lost session comes back by itself',
    async run(credential) {
      let opened = 0
      await pause(1100)
      const signal = AbortSignal.timeout(60_000)
      const loop = stayConnected(credential, { ...patience, signal, spreadMs: 2000 })
      for await (const session of loop) {
        opened++
        if (opened === 2) break
        const other = await open(credential) // the same client id: the server ends the first
        const end = await soon(session.ended, 'a second connection did not end the first')
        holds(end.reason === 'lost', 'it ended by itself')
        await other.close()
      }
      holds(opened === 2, 'it did not within a minute')
      return undefined
    },
  },
  {
    title: 'another client id than the thing name is turned away',
    async run(credential) {
      try {
        await (await open({ ...credential, thingName: `${credential.thingName}-other` })).close()
      } catch (error) {
        if (isCertvendError(error, 'ERR_SESSION_REFUSED')) return undefined
        throw error
      }
      return {
        note: 'it was let in: bind iot:Connect to the policy variable iot:Connection.Thing.ThingName',
      }
    },
  },
]

await main(async () => {
  const credential = await readIdentity('acceptance')
  const { host, port } = credential.endpoint
  console.log(`${credential.thingName} at ${host}:${port}`)
  const counts = { pass: 0, FAIL: 0, note: 0, skip: 0 }
  const tell = (verdict: keyof typeof counts, title: string, words = ''): void => {
    counts[verdict]++
    console.log(`${verdict}  ${title}${words && `\n      ${words}`}`)
  }
  for (const { title, needed, run } of steps) {
    try {
      const outcome = await run(credential)
      if (outcome === undefined) tell('pass', title)
      else if ('note' in outcome) tell('note', title, outcome.note)
      else tell('skip', title, outcome.skip)
    } catch (error) {
      const { message } = error as Error
      tell('FAIL', title, isCertvendError(error) ? `${message}; ${error.hint}` : message)
      if (needed) break
    }
  }
  const { pass, FAIL, note, skip } = counts
  console.log(`${pass} passed, ${FAIL} failed, ${note} noted, ${skip} skipped`)
  if (FAIL > 0) process.exitCode = 1
})
