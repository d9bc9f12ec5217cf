/**
 * A device that is a process of its own: real TLS, real sockets, a real SIGKILL. Its order comes on
 * standard input, its ending goes to standard output; only its clock is moved.
 */
import fs from 'node:fs'
import { text } from 'node:stream/consumers'
import { setTimeout as rest } from 'node:timers/promises'
import {
  type Clock,
  type Credential,
  connect,
  createClaim,
  createVendingServer,
  isCertvendError,
} from '@certvend/client'
import { boot } from './device.ts'
import type { Kill } from './happenings.ts'
import { createMortal } from './mortal.ts'
import type { Instant } from './witness.ts'

/** What a device process is told. */
export interface Order {
  readonly directory: string
  readonly url: string
  /** PEM. */
  readonly pins: string
  readonly deviceSerial: string
  readonly token: string
  readonly again: boolean
  readonly clockless: boolean
  readonly kill?: Kill
  /** The true time, in milliseconds. */
  readonly now: number
  /** A file in which it keeps its {@link Instant}. */
  readonly clockFile: string
  readonly mostWaits: number
  readonly deadlineMs: number
}

const order = JSON.parse(await text(process.stdin)) as Order
const { writeFileSync } = fs
const at = { now: order.now, waits: 0 }
const tell = (): void => writeFileSync(order.clockFile, JSON.stringify(at satisfies Instant))
tell()

const mortal = createMortal(order.kill, () => {
  process.kill(process.pid, 'SIGKILL')
  for (;;); // until it arrives
})

const skew = order.clockless ? -order.now : 0
const clock: Clock = {
  now: () => new Date(at.now + skew),
  async wait(ms) {
    at.waits++
    mortal.reach('waiting')
    if (at.waits > order.mostWaits) mortal.end()
    at.now += ms
    tell()
    await rest(2)
  },
}

async function door(credential: Credential): Promise<boolean> {
  try {
    const session = await connect(credential)
    await session.close()
    return true
  } catch (error) {
    if (isCertvendError(error, 'ERR_SESSION_REFUSED')) return false
    throw error
  }
}

const { deviceSerial, token, directory, again, deadlineMs } = order
const ending = await boot({
  directory,
  server: createVendingServer({ url: order.url, pins: order.pins }),
  claim: createClaim({ deviceSerial, token }),
  again,
  clock,
  mortal,
  door,
  options: { deadlineMs },
})
process.stdout.write(JSON.stringify(ending))
