/**
 * A short queue before work that occupies the four threads which Node has for it. Without one, whoever
 * sends enough of it is in front of everybody, and what waits is answered when nobody waits any more.
 */

/** Undefined, at once, when too many wait already. */
export type Queue = <T>(work: () => Promise<T>) => Promise<T> | undefined

/**
 * @param options.atOnce two by default: two threads stay free, so that certificates are signed meanwhile
 * @param options.waitingAtMost about ten seconds of work: who came later would not be waiting any more
 */
export function createQueue(
  options: { readonly atOnce?: number; readonly waitingAtMost?: number } = {},
): Queue {
  const { atOnce = 2, waitingAtMost = 100 } = options
  const waiting: (() => void)[] = []
  let running = 0

  async function inTurn<T>(work: () => Promise<T>): Promise<T> {
    if (running < atOnce) running += 1
    else await new Promise<void>((resolve) => waiting.push(resolve)) // whoever ends hands its turn on
    try {
      return await work()
    } finally {
      const next = waiting.shift()
      if (next) next()
      else running -= 1
    }
  }

  return (work) => (running >= atOnce && waiting.length >= waitingAtMost ? undefined : inTurn(work))
}
