/** The realm of ten thousand lives: this process, a moved clock, a `send` that is a function call. */
import { createPublicKey } from 'node:crypto'
import fs from 'node:fs'
import {
  CertvendError,
  type Clock,
  createClaim,
  createVendingServer,
  type Send,
} from '@certvend/client'
import { issuedFor } from '../prove/certificates.ts'
import { installStandIns } from '../prove/standins.ts'
import { makeWorkspace } from '../prove/whole.ts'
import { type Device, type Ending, boot as honestBoot } from './device.ts'
import type { Realm } from './life.ts'
import { createMortal } from './mortal.ts'
import { deviceSerial } from './world.ts'

/** A device that waits more often than this in one boot is switched off. */
export const mostWaits = 60

export const claim = createClaim({ deviceSerial, token: 'T0ken+of/one-use~0123456789' })

export interface MemoryRealm extends Realm {
  close(): void
}

/** @param boot what a device does; default: what it should. */
export function createMemoryRealm(
  boot: (device: Device) => Promise<Ending> = honestBoot,
): MemoryRealm {
  const standIns = installStandIns()
  const workspace = makeWorkspace()
  const anchor = issuedFor(
    createPublicKey({
      key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), Buffer.alloc(32, 5)]),
      format: 'der',
      type: 'spki',
    }),
    1,
  ).endpoint.trustAnchors
  const server = createVendingServer({ url: 'https://vending.example', pins: anchor })

  return {
    workspace,
    close() {
      standIns.remove()
      fs.rmSync(workspace, { recursive: true })
    },
    async boot({ kill, acts, again, clockless }, { world, witness, directory, now: begin }) {
      const left = [...acts]
      const at = { now: begin, waits: 0 }
      const skew = clockless ? -begin : 0
      const mortal = createMortal(kill)
      const clock: Clock = {
        now: () => new Date(at.now + skew),
        async wait(ms) {
          if (!mortal.dead) at.waits++
          mortal.reach('waiting')
          if (at.waits > mostWaits) mortal.end()
          at.now += ms
        },
      }
      const send: Send = async ({ body }, { deadlineMs }) => {
        const { csr } = JSON.parse(String(body)) as { csr: string }
        const act = left.shift() ?? { do: 'answer', dress: 'plain' }
        witness.asked(csr, act, { ...at })
        const { answer, bond } = world.ask(csr, act, at.now)
        mortal.reach('unanswered')
        if ('nothing' in answer && answer.nothing === 'stalled') {
          at.now += deadlineMs
          throw new CertvendError('ERR_TIMEOUT', 'no answer in time')
        }
        if ('nothing' in answer || answer.half)
          throw new CertvendError('ERR_REPLY_LOST', 'the connection broke')
        witness.answered(bond, { ...at })
        return answer.response
      }
      try {
        const ending = await boot({
          directory,
          server,
          claim,
          again,
          clock,
          mortal,
          options: { send },
          door: async ({ certificateId }) => {
            const admitted = world.admits(certificateId)
            witness.tried(certificateId, admitted)
            return admitted
          },
        })
        return { ending: mortal.dead ? { as: 'killed' } : ending, at }
      } catch (error) {
        if (!mortal.dead) throw error
        return { ending: { as: 'killed' }, at }
      } finally {
        mortal.bury()
      }
    },
  }
}
