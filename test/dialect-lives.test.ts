/**
 * Whole lives in the dialects that must not be asked twice. `npm run test:lives` lives a thousand; the
 * seed is printed when one goes wrong, and by fast-check it is shrunk.
 */
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { OldDialect } from './contracts/machines.ts'
import type { World } from './contracts/world.ts'
import { type Boot, beginLife, type Fate, type Life } from './dialect-life.ts'

const lives = Number(process.env.CERTVEND_LIVES ?? 25)

const fate: fc.Arbitrary<Fate> = fc.oneof(
  fc.constantFrom<Fate>(
    { kind: 'answered' },
    { kind: 'unsent' },
    { kind: 'lost on the way there' },
    { kind: 'lost on the way back' },
    { kind: 'killed before sending' },
  ),
  fc.record({ kind: fc.constant('late' as const), byMs: fc.integer({ min: 0, max: 29_000 }) }),
  fc.record({ kind: fc.constant('cut' as const), at: fc.nat(1500) }),
  fc.record({
    kind: fc.constant('failing' as const),
    step: fc.constantFrom(
      'createPolicy',
      'createThing',
      'createKeysAndCertificate',
      'attach',
      'update',
      'destroy',
      'delete',
    ),
  }),
  fc.record({ kind: fc.constant('killed' as const), after: fc.nat(60) }),
)

const boots: fc.Arbitrary<Boot[]> = fc.array(
  fc.record({
    fates: fc.array(fate, { minLength: 1, maxLength: 3 }),
    offMs: fc.constantFrom(100, 2_000, 30_000, 3_600_000),
    clockLost: fc.boolean(),
  }),
  { minLength: 1, maxLength: 3 },
)

const calm: Boot = { fates: [], offMs: 1000, clockLost: false }

async function living(dialect: OldDialect, live: (life: Life) => Promise<void>): Promise<void> {
  const memory = '/dev/shm'
  const parent = fs.existsSync(memory) ? memory : fs.realpathSync(tmpdir())
  const directory = fs.mkdtempSync(path.join(parent, 'certvend-life-'))
  const life = beginLife(dialect, directory)
  try {
    await live(life)
  } finally {
    life.end()
    fs.rmSync(directory, { recursive: true, force: true })
  }
}

/** The credential that the device holds still works over there. */
async function expectUsable(life: Life): Promise<void> {
  const store = await life.store()
  const held = store.current()
  store.close()
  expect(held?.deviceSerial).toBe(life.claim.deviceSerial)
  expect(life.world.certificates.get(held!.certificateId)?.status).toBe('ACTIVE')
  expect(life.world.certificates.get(held!.certificateId)?.policies.size).toBe(1)
}

/** What the operator does who was told: the resources and the row by name, as in the hint. */
const resets: Readonly<Partial<Record<OldDialect, (world: World, serial: string) => void>>> = {
  'awslabs-2018': (world, serial) => {
    remove(world, serial, serial)
    delete world.rows.get(serial)!.certinfo
  },
  'awslabs-2020': (world, serial) => {
    remove(world, serial, serial)
    delete world.rows.get(serial)!.certinfo
  },
  'iot-atlas': (world, serial) => {
    remove(world, `thing_${serial}`)
    world.rows.get(serial)!.registered = 0
  },
  'gateway-2021': (world, serial) => remove(world, serial),
}

function remove(world: World, thing: string, policy?: string): void {
  for (const certificate of world.certificates.values())
    if (certificate.things.has(thing)) certificate.status = 'DELETED'
  world.things.delete(thing)
  if (policy !== undefined) world.policies.delete(policy)
}

/** Boots until nothing more happens to it; where a person is asked for, does what the hint says. */
async function liveOn(life: Life, dialect: OldDialect, all: readonly Boot[]): Promise<void> {
  for (const boot of all) await life.boot(boot)
  const { deviceSerial } = life.claim
  const first = await life.boot(calm)
  if (first) {
    expect(first).toMatchObject({ remedy: 'operator' })
    expect(first.hint).toContain(deviceSerial)
    expect(first.hint).toMatch(/in IoT Core/)
    await life.settle()
    resets[dialect]?.(life.world, deviceSerial)
    expect(await life.boot(calm, { again: true })).toBeUndefined()
  }
  await expectUsable(life)
}

describe('lives of a device', () => {
  it(`at awslabs-2020 never lose a certificate to a request of their own, ${lives} times`, async () => {
    await fc.assert(
      fc.asyncProperty(boots, (all) =>
        living('awslabs-2020', async (life) => {
          await liveOn(life, 'awslabs-2020', all)
          expect(await life.pester()).toMatchObject({ code: 'ERR_REQUEST_REFUSED' })
          await life.settle()
          expect(await life.boot({ ...calm, offMs: 3_600_000 })).toBeUndefined()
          await expectUsable(life)
        }),
      ),
      { numRuns: lives },
    )
  }, 600_000)

  it.each(['awslabs-2018', 'iot-atlas', 'gateway-2021'] as const)(
    `at %s end usable, or with the exact instruction that makes them so, ${lives} times`,
    async (dialect) => {
      await fc.assert(
        fc.asyncProperty(boots, (all) => living(dialect, (life) => liveOn(life, dialect, all))),
        { numRuns: lives },
      )
    },
    600_000,
  )
})
