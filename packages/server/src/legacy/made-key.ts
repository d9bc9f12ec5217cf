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
import { createQueue } from '../queue.ts'
import type { MadeKey } from './dialect.ts'

/** A key and what an issuer may see of it. */
export interface KeyInHand {
  readonly key: MadeKey
  readonly request: JudgedRequest
}

/** Resolves to undefined when too many wait already. */
export type MakeKey = (deviceSerial: string) => Promise<KeyInHand | undefined>

/** @param waitingAtMost see {@link createQueue} */
export function createMakeKey(waitingAtMost?: number): MakeKey {
  const generate = promisify(generateKeyPair)
  const queue = createQueue(waitingAtMost === undefined ? {} : { waitingAtMost })
  return async (deviceSerial) =>
    queue(async () => {
      const { privateKey } = await generate('rsa', { modulusLength: 2048 })
      return inHand(privateKey, deviceSerial)
    })
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
