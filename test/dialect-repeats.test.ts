/** Asking twice, where that destroys a certificate or uses up the only answer: when it is done, and when not. */
import fs from 'node:fs'
import path from 'node:path'
import {
  CertvendError,
  type Credential,
  type CredentialStore,
  createClaim,
  createVendingServer,
  ensureCredential,
  openCredentialStore,
  type Send,
} from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { successOf } from './contracts/answers.ts'
import { oldDialects } from './contracts/machines.ts'
import { optionsFor, unreachable, vendingCa } from './contracts/reference.ts'
import { attempt, clock, deviceSerial, now, openStore, saying, token } from './dialect-attempt.ts'
import { instantClock } from './instant-clock.ts'

const lost = new CertvendError('ERR_REPLY_LOST', 'the connection broke')
/** Sent, and never answered. */
const losing: Send = async (_, { beforeSend }) => {
  beforeSend?.()
  throw lost
}
/** Never even sent. */
const unreached: Send = async () => {
  throw new CertvendError('ERR_NETWORK', 'no route')
}
const unaskable: Send = () => {
  throw new Error('nobody may be asked now')
}
const at = (iso: string) => ({ ...clock, now: () => new Date(iso) })

const record = (store: CredentialStore) => {
  const pending = store.pending()
  return pending?.state === 'requested' ? pending.request : undefined
}
const onDisk = (store: CredentialStore): string => {
  const file = path.join(store.directory, 'pending/request.json')
  return fs.existsSync(file) ? fs.readFileSync(file, 'utf8') : ''
}
const reopened = async (store: CredentialStore): Promise<CredentialStore> => {
  store.close()
  return openCredentialStore(store.directory)
}

const once = ['awslabs-2018', 'iot-atlas', 'gateway-2021'] as const
const unsafe = [...once, 'awslabs-2020'] as const

describe.each(unsafe)('%s, which must not be asked twice just so', (dialect) => {
  it('writes down that a request goes out, before it does', async () => {
    const store = await openStore()
    let seen = ''
    const looking: Send = async (_, { beforeSend }) => {
      expect(onDisk(store)).toBe('')
      beforeSend?.()
      seen = onDisk(store)
      throw lost
    }
    await attempt(store, dialect, looking)
    expect(JSON.parse(seen)).toEqual({
      version: 1,
      dialect,
      urlHash: expect.stringMatching(/^[0-9a-f]{64}$/),
      sentAt: now.toISOString(),
      attempts: 1,
      unanswered: true,
      digest: expect.stringMatching(/^[0-9a-f]{64}$/),
    })
    expect(seen).not.toContain(token)
  })

  it('sends nothing when that cannot be written', async () => {
    const store = await openStore()
    const send: Send = async (_, { beforeSend }) => {
      const pending = path.join(store.directory, 'generations/0000000001')
      fs.renameSync(pending, `${pending}-away`)
      fs.writeFileSync(pending, '')
      try {
        beforeSend?.()
      } finally {
        fs.rmSync(pending)
        fs.renameSync(`${pending}-away`, pending)
      }
      throw new Error('it was sent')
    }
    const error = await attempt(store, dialect, send)
    expect(error).toMatchObject({ code: 'ERR_STORE_UNWRITABLE', remedy: 'operator' })
  })

  it('writes nothing down for a request that never went out, and may ask again', async () => {
    const store = await openStore()
    expect(await attempt(store, dialect, unreached)).toMatchObject({
      code: 'ERR_NETWORK',
      remedy: 'retry',
    })
    expect(onDisk(store)).toBe('')
    const { text } = await successOf(dialect, deviceSerial)
    expect(await attempt(store, dialect, saying({ body: text }))).toEqual(store.current())
  })

  it('keeps nothing of the request once its answer is stored', async () => {
    const store = await openStore()
    const { text } = await successOf(dialect, deviceSerial)
    await attempt(store, dialect, saying({ body: text }))
    const again = await reopened(store)
    expect(again.current()).toMatchObject({ keyOrigin: 'server', generation: 2 })
    expect(again.pending()).toBeUndefined()
    expect(fs.readdirSync(path.join(store.directory, 'generations'))).toEqual(['0000000002'])
    expect(again.mended).toEqual([])
  })
})

describe.each(once)('%s, which answers once', (dialect) => {
  it('after a lost answer asks for a person, and says what is to be reset', async () => {
    const store = await openStore()
    const error = (await attempt(store, dialect, losing)) as CertvendError
    expect(error).toMatchObject({ code: 'ERR_REPLY_LOST', remedy: 'operator', cause: lost })
    const resets = {
      'awslabs-2018':
        'in IoT Core detach and delete the policy device-1, set to INACTIVE and delete every certificate attached to the thing device-1 (aws iot list-thing-principals --thing-name device-1) and those made since without a policy, delete the thing device-1; in the DynamoDB table (deviceInfo by default) remove certinfo from item serialNumber=device-1; then on the device: certvend enroll --again',
      'iot-atlas':
        'in IoT Core delete the thing (thing_device-1 by default) with the certificates attached to it, and those made since without a thing; in item device_uid=device-1 of the DynamoDB table (DeviceProvisioningInfoDB by default) set is_registered to the number 0 and remove iot_core_thing_name and iot_core_registered_on; then on the device: certvend enroll --again',
      'gateway-2021':
        'in IoT Core set to INACTIVE and delete the certificates attached to the thing device-1 (aws iot list-thing-principals --thing-name device-1), and delete the thing device-1; then on the device: certvend enroll --again',
    }
    expect(error.hint).toBe(resets[dialect])
  })

  it('does not ask again, not after a restart either, until a person says so', async () => {
    const store = await openStore()
    const first = (await attempt(store, dialect, losing)) as CertvendError
    const rebooted = await reopened(store)
    for (const when of ['2027-03-01T12:00:01Z', '2028-01-01T00:00:00Z', '1970-01-01T00:00:00Z'])
      expect(await attempt(rebooted, dialect, unaskable, { clock: at(when) })).toMatchObject({
        code: 'ERR_REPLY_LOST',
        remedy: 'operator',
        hint: first.hint,
      })
    const { text } = await successOf(dialect, deviceSerial)
    const credential = await attempt(rebooted, dialect, saying({ body: text }), { again: true })
    expect(credential).toEqual(rebooted.current())
    rebooted.close()
  })

  it('is one request where ensureCredential asks', async () => {
    const store = await openStore()
    let requests = 0
    const send: Send = (request, limits) => {
      requests++
      return losing(request, limits)
    }
    const claim = createClaim({ deviceSerial, token, dialect })
    const asking = ensureCredential(store, unreachable(dialect), claim, {
      send,
      clock: instantClock(now),
    })
    await expect(asking).rejects.toMatchObject({ code: 'ERR_REPLY_LOST', remedy: 'operator' })
    expect(requests).toBe(1)
  })

  it('may be asked at another URL', async () => {
    const store = await openStore()
    await attempt(store, dialect, losing)
    const elsewhere = createVendingServer({
      url: 'https://successor.example',
      pins: vendingCa.certificate,
      dialect: optionsFor(dialect),
    })
    const { text } = await successOf(dialect, deviceSerial)
    const claim = createClaim({ deviceSerial, token, dialect })
    const credential = await ensureCredential(store, elsewhere, claim, {
      send: saying({ body: text }),
      clock,
    })
    expect(credential.vendedBy).toMatchObject({ url: 'https://successor.example/' })
  })
})

describe('awslabs-2020, whose every answer destroys the one before', () => {
  const dialect = 'awslabs-2020'
  const holding = async (): Promise<CredentialStore> => {
    const store = await openStore()
    const { text } = await successOf(dialect, deviceSerial)
    await attempt(store, dialect, saying({ body: text }))
    expect(store.current()).toBeDefined()
    return store
  }

  it('is not asked while a credential is held that may still work, and nothing is made for it', async () => {
    const store = await holding()
    const held = store.current() as Credential
    const error = await attempt(store, dialect, unaskable)
    expect(error).toMatchObject({ code: 'ERR_REQUEST_REFUSED', remedy: 'operator' })
    expect((error as Error).message).toContain(held.certificateId)
    expect(store.pending()).toBeUndefined()
    expect(store.current()).toEqual(held)
  })

  it('is asked once that has ended, or when a person says so', async () => {
    const { text } = await successOf(dialect, deviceSerial)
    const store = await holding()
    await attempt(store, dialect, saying({ body: text }), { again: true })
    expect(store.pending()?.state).toBe('issued')
    store.promote()
    const ended = at('2060-01-01T00:00:00Z')
    const error = await attempt(store, dialect, losing, { clock: ended })
    expect(error).toMatchObject({ code: 'ERR_REPLY_LOST', remedy: 'retry' })
    expect(store.current()).toBeDefined()
  })

  it('waits after a lost answer until that request cannot be at work any more', async () => {
    const store = await openStore()
    expect(await attempt(store, dialect, losing)).toMatchObject({ remedy: 'retry' })
    const rebooted = await reopened(store)
    const soon = await attempt(rebooted, dialect, unaskable, { clock: at('2027-03-01T12:00:59Z') })
    expect(soon).toMatchObject({
      code: 'ERR_REPLY_LOST',
      remedy: 'retry',
      retryAt: new Date('2027-03-01T12:01:00Z'),
    })
    const { text } = await successOf(dialect, deviceSerial)
    const later = { clock: at('2027-03-01T12:01:00Z') }
    expect(await attempt(rebooted, dialect, saying({ body: text }), later)).toEqual(
      rebooted.current(),
    )
    rebooted.close()
  })

  it('waits as long by a clock that was set back, and no longer', async () => {
    const store = await openStore()
    await attempt(store, dialect, losing)
    const back = at('1970-01-01T00:00:10Z')
    expect(await attempt(store, dialect, unaskable, { clock: back })).toMatchObject({
      retryAt: new Date('1970-01-01T00:01:10Z'),
    })
    expect(record(store)).toMatchObject({ sentAt: new Date('1970-01-01T00:00:10Z') })
    const { text } = await successOf(dialect, deviceSerial)
    await attempt(store, dialect, saying({ body: text }), { clock: at('1970-01-01T00:01:10Z') })
    expect(store.current()).toBeDefined()
  })

  it('comes to its credential by itself, through lost answers', async () => {
    const store = await openStore()
    const { text } = await successOf(dialect, deviceSerial)
    const moving = instantClock(now)
    const sentAt: number[] = []
    const send: Send = (request, limits) => {
      sentAt.push(moving.now().getTime())
      return (sentAt.length < 4 ? losing : saying({ body: text }))(request, limits)
    }
    const claim = createClaim({ deviceSerial, token, dialect })
    const credential = await ensureCredential(store, unreachable(dialect), claim, {
      send,
      clock: moving,
    })
    expect(credential).toEqual(store.current())
    expect(sentAt).toHaveLength(4)
    for (const [index, when] of sentAt.slice(1).entries())
      expect(when - sentAt[index]!).toBeGreaterThanOrEqual(60_000)
  })
})

describe.each(oldDialects)('%s', (dialect) => {
  it('refuses a key in a token and a serial that names no thing, before anything is made', async () => {
    const store = await openStore()
    const odd = createClaim({ deviceSerial: 'device.1', token, dialect })
    const asking = ensureCredential(store, unreachable(dialect), odd, { send: unaskable, clock })
    // iot-atlas is told the thing name.
    await expect(asking).rejects.toThrow(
      dialect === 'iot-atlas' ? 'nobody may be asked' : TypeError,
    )
    const claim = createClaim({ deviceSerial, token, dialect })
    const key = { uri: 'pkcs11:token=x' } as never
    await expect(
      ensureCredential(store, unreachable(dialect), claim, { key, send: unaskable, clock }),
    ).rejects.toThrow('the vending machine makes the key')
    if (dialect !== 'iot-atlas') expect(store.pending()).toBeUndefined()
  })
})
