/**
 * What arrives on a session, shared out among its subscriptions, with back-pressure.
 *
 * `deliver` resolves when every matching subscription has room; only then is the message
 * acknowledged and the next one read. A resumed session brings messages before its program has
 * subscribed again: they wait a while for that.
 */
import { type Clock, systemClock } from './clock.ts'
import type { Message } from './session.ts'

export interface Inbox {
  deliver(message: Message): Promise<void>
  /** @param onLast told when this subscription was left, and no other of the same filter is open. */
  open(filter: string, onLast?: () => void): Subscription
  /** Ends every subscription once it has yielded what it holds. */
  close(): void
}

export interface Subscription extends AsyncIterableIterator<Message, undefined> {
  return(): Promise<IteratorResult<Message, undefined>>
}

/** Messages held for a consumer before the server is slowed. */
const room = 16
/** How long what nobody has subscribed to yet waits for that, counted from the first, in milliseconds. */
const unclaimedMs = 10_000

/** Whether a topic filter matches a topic name (MQTT 3.1.1 section 4.7). */
export function matches(filter: string, topic: string): boolean {
  // A wildcard at the start does not match topics that begin with $ (section 4.7.2).
  if (topic.startsWith('$') && /^[+#]/.test(filter)) return false
  const wanted = filter.split('/')
  const levels = topic.split('/')
  for (const [index, level] of wanted.entries()) {
    if (level === '#') return true
    if (index >= levels.length || (level !== '+' && level !== levels[index])) return false
  }
  return wanted.length === levels.length
}

interface Queue {
  readonly filter: string
  push(message: Message): Promise<void>
  end(): void
}

export function openInbox(clock: Clock = systemClock): Inbox {
  const queues = new Set<Queue>()
  /** Filters whose readers have gone; what the server had sent by then still comes. */
  const left = new Set<string>()
  const closing = new AbortController()
  let waiting: (() => void)[] = []
  let patience: Promise<void> | undefined
  let patient = true

  const isAwaited = ({ topic }: Message): boolean =>
    patient && ![...left].some((filter) => matches(filter, topic))
  /** Resolves when a subscription opens, or it was waited long enough. */
  const change = (): Promise<void> => {
    patience ??= clock
      .wait(unclaimedMs, closing.signal)
      .catch(() => {})
      .then(() => {
        patient = false
      })
    return Promise.race([patience, new Promise<void>((resolve) => waiting.push(resolve))])
  }
  const wake = (): void => {
    for (const resolve of waiting) resolve()
    waiting = []
  }

  return {
    async deliver(message) {
      const matching = (): Queue[] =>
        [...queues].filter(({ filter }) => matches(filter, message.topic))
      let found = matching()
      while (found.length === 0 && isAwaited(message)) {
        await change()
        found = matching()
      }
      await Promise.all(found.map((queue) => queue.push(message)))
    },
    open(filter, onLast = () => {}) {
      const { queue, subscription } = openQueue(filter, () => {
        if (!queues.delete(queue)) return
        left.add(filter)
        wake()
        if (![...queues].some((other) => other.filter === filter)) onLast()
      })
      left.delete(filter)
      if (closing.signal.aborted) queue.end()
      else queues.add(queue)
      wake()
      return subscription
    },
    close() {
      patient = false
      closing.abort()
      wake()
      for (const queue of queues) queue.end()
      queues.clear()
    },
  }
}

function openQueue(
  filter: string,
  onReturn: () => void,
): { queue: Queue; subscription: Subscription } {
  const held: Message[] = []
  const done = { done: true, value: undefined } as const
  let over = false
  let readers: (() => void)[] = []
  let freed: (() => void)[] = []
  const release = (): void => {
    for (const free of freed) free()
    freed = []
  }
  const wakeReaders = (): void => {
    for (const wake of readers) wake()
    readers = []
  }
  const queue: Queue = {
    filter,
    async push(message) {
      held.push(message)
      wakeReaders()
      if (held.length > room) await new Promise<void>((resolve) => freed.push(resolve))
    },
    end() {
      over = true
      wakeReaders()
      release()
    },
  }
  const subscription: Subscription = {
    async next() {
      while (held.length === 0 && !over) await new Promise<void>((resolve) => readers.push(resolve))
      const value = held.shift()
      if (held.length <= room) release()
      return value ? { done: false, value } : done
    },
    async return() {
      held.length = 0
      queue.end()
      onReturn()
      return done
    },
    [Symbol.asyncIterator]: () => subscription,
  }
  return { queue, subscription }
}
