/**
 * Private keys for devices that cannot make their own: RSA-2048, as AWS IoT makes them, and a
 * certification request that they sign, so that the issuers see no difference.
 *
 * A key lives in this process for as long as its answer takes. It is written nowhere.
 */
import { createPublicKey, generateKeyPair, type KeyObject, sign } from 'node:crypto'
import { promisify } from 'node:util'
import { createCertificationRequest } from '@certvend/client/csr'
import { type JudgedRequest, judgeRequest } from '../policy.ts'
import type { MadeKey } from './dialect.ts'

/** A key and what an issuer may see of it. */
export interface KeyInHand {
  readonly key: MadeKey
  readonly request: JudgedRequest
}

/** Resolves to undefined when too many wait already. */
export type MakeKey = (deviceSerial: string) => Promise<KeyInHand | undefined>

/** Two of the four threads that Node has for such work, so that tokens are still judged meanwhile. */
const atOnce = 2
/** @param waitingAtMost about ten seconds of work: whoever came later would not be waiting any more */
export function createMakeKey(waitingAtMost = 100): MakeKey {
  const generate = promisify(generateKeyPair)
  const waiting: (() => void)[] = []
  let running = 0

  async function takeTurn(): Promise<boolean> {
    if (running < atOnce) {
      running += 1
      return true
    }
    if (waiting.length >= waitingAtMost) return false
    await new Promise<void>((resolve) => waiting.push(resolve)) // whoever ends hands its turn on
    return true
  }

  function endTurn(): void {
    const next = waiting.shift()
    if (next) next()
    else running -= 1
  }

  return async (deviceSerial) => {
    if (!(await takeTurn())) return undefined
    try {
      const { privateKey } = await generate('rsa', { modulusLength: 2048 })
      return await inHand(privateKey, deviceSerial)
    } finally {
      endTurn()
    }
  }
}

async function inHand(privateKey: KeyObject, deviceSerial: string): Promise<KeyInHand> {
  const publicKey = createPublicKey(privateKey)
  const csr = await createCertificationRequest(
    { publicKey, sign: async (data, digest) => sign(digest, data, privateKey) },
    deviceSerial,
  )
  const judged = judgeRequest(csr, deviceSerial)
  if (!judged.ok) throw new Error(`a request of our own making was refused: ${judged.reason}`)
  const key = {
    publicKey: publicKey.export({ type: 'spki', format: 'pem' }).toString(),
    privateKey: privateKey.export({ type: 'pkcs1', format: 'pem' }).toString(),
  }
  return { key, request: judged.request }
}
