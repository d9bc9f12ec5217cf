/**
 * What people ask of a running agent: carried from the socket to the loop, done one after another,
 * and answered when done.
 */
import { CertvendError } from '@certvend/client'

export type Errand =
  /** Ask now, with this token or the configured one; `again`: also where a lost answer forbids it. */
  | { readonly do: 'enroll'; readonly token?: string; readonly again?: true }
  /** A successor of the credential in use: by a claim, or by what is in use. */
  | { readonly do: 'renew'; readonly by: 'credential' }
  | {
      readonly do: 'renew'
      readonly by: 'claim'
      readonly token?: string
      /** Give up a successor that is refused, also where it cannot be had a second time. */
      readonly discard?: true
    }
  | { readonly do: 'forget' }

export interface Errands {
  /** Resolves with the result once it is done, and rejects with what it failed by. */
  run(errand: Errand): Promise<unknown>
  next(): Errand | undefined
  /** Aborts when an errand comes, or {@link Errands.ring} is called: for a wait. */
  bell(): AbortSignal
  ring(): void
  /** Does the next one; what `action` comes to is its answer. */
  settle(action: () => Promise<unknown>): Promise<void>
  /** For the agent's end: nothing more is taken, and all but what is in hand rejects. */
  close(): void
}

interface Waiting {
  readonly errand: Errand
  resolve(result: unknown): void
  reject(error: Error): void
}

export function openErrands(): Errands {
  const queue: Waiting[] = []
  let bell = new AbortController()
  let isInHand = false
  let isClosed = false
  return {
    run: (errand) =>
      new Promise((resolve, reject) => {
        if (isClosed) throw cutShort()
        queue.push({ errand, resolve, reject })
        bell.abort()
      }),
    ring: () => bell.abort(),
    next: () => queue[0]?.errand,
    bell() {
      if (queue.length === 0 && bell.signal.aborted) bell = new AbortController()
      return bell.signal
    },
    async settle(action) {
      const waiting = queue[0]
      isInHand = true
      try {
        waiting?.resolve(await action())
      } catch (error) {
        waiting?.reject(error as Error)
      } finally {
        queue.shift()
        isInHand = false
      }
    },
    close() {
      isClosed = true
      for (const { reject } of queue.splice(isInHand ? 1 : 0)) reject(cutShort())
    },
  }
}

/** For what the agent's end, or a reload, cut short. */
export const cutShort = (): CertvendError =>
  new CertvendError('ERR_TIMEOUT', 'the agent was told to stop or to reload before this was done', {
    hint: 'ask again; nothing is lost',
  })
