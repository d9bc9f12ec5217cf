import { describe, expect, it } from 'vitest'
import { matches, openInbox } from '../src/inbox.ts'
import type { Message } from '../src/session.ts'

const message = (topic: string): Message => ({
  topic,
  payload: new Uint8Array(),
  qos: 1,
  retain: false,
})

describe('a topic filter', () => {
  it.each([
    ['a/b', 'a/b'],
    ['a/+', 'a/b'],
    ['a/+', 'a/'],
    ['+', 'a'],
    ['+/+', '/'],
    ['/+', '/a'],
    ['+/b/#', 'a/b'],
    ['a/#', 'a'],
    ['a/#', 'a/b/c'],
    ['#', 'a/b/c'],
    ['#', '/'],
    ['$SYS/#', '$SYS/broker'],
    ['a/$x', 'a/$x'],
    ['a/+', 'a/$x'],
  ])('%s matches %s', (filter, topic) => {
    expect(matches(filter, topic)).toBe(true)
  })

  it.each([
    ['a/b', 'a'],
    ['a/b', 'a/b/c'],
    ['a/b', 'a/B'],
    ['a/b', 'a/b/'],
    ['a/+', 'a'],
    ['a/+', 'a/b/c'],
    ['+', 'a/b'],
    ['+', '/a'],
    ['a/#', 'ab'],
    ['a/#', 'b/a'],
    ['#', '$SYS/broker'],
    ['+/broker', '$SYS/broker'],
    ['$SYS/+', '$sys/broker'],
  ])('%s does not match %s', (filter, topic) => {
    expect(matches(filter, topic)).toBe(false)
  })
})

describe('an inbox', () => {
  const settled = async (promise: Promise<unknown>): Promise<boolean> => {
    const pending = Symbol('pending')
    const rest = new Promise((resolve) => setImmediate(resolve, pending))
    return (await Promise.race([promise, rest])) !== pending
  }

  it('drops what nobody subscribed to', async () => {
    await openInbox().deliver(message('a'))
  })

  it('holds back the sender once a consumer is behind, until it has caught up', async () => {
    const inbox = openInbox()
    const reader = inbox.open('a')
    let held: Promise<void> = Promise.resolve()
    let delivered = 0
    while (await settled(held)) {
      held = inbox.deliver(message('a'))
      delivered++
    }
    expect(delivered).toBeLessThan(40)
    await reader.next()
    expect(await settled(held)).toBe(true)
  })

  it('is not held back by a consumer of other topics, or by one that left', async () => {
    const inbox = openInbox()
    const reader = inbox.open('a')
    inbox.open('b')
    for (let count = 0; count < 16; count++) await inbox.deliver(message('a'))
    const held = inbox.deliver(message('a'))
    expect(await settled(held)).toBe(false)
    await reader.return()
    expect(await settled(held)).toBe(true)
    for (let count = 0; count < 100; count++) await inbox.deliver(message('a'))
    expect(await reader.next()).toEqual({ done: true, value: undefined })
  })

  it('tells when the last reader of a filter left, once, and not when it closes', async () => {
    const inbox = openInbox()
    const left: string[] = []
    const open = (filter: string, name: string) => inbox.open(filter, () => left.push(name))
    const [first, second] = [open('a', 'first'), open('a', 'second')]
    open('#', 'all')
    await first.return()
    expect(left).toEqual([])
    await second.return()
    await second.return()
    expect(left).toEqual(['second'])
    inbox.close()
    await open('b', 'late').return()
    expect(left).toEqual(['second'])
  })

  it('yields what it holds before it ends', async () => {
    const inbox = openInbox()
    const reader = inbox.open('#')
    await inbox.deliver(message('a'))
    await inbox.deliver(message('b'))
    inbox.close()
    expect((await reader.next()).value?.topic).toBe('a')
    expect((await reader.next()).value?.topic).toBe('b')
    expect((await reader.next()).done).toBe(true)
    expect((await inbox.open('#').next()).done).toBe(true)
  })

  it('frees the sender when it closes', async () => {
    const inbox = openInbox()
    inbox.open('a')
    const held = Array.from({ length: 30 }, () => inbox.deliver(message('a')))
    expect(await settled(Promise.all(held))).toBe(false)
    inbox.close()
    expect(await settled(Promise.all(held))).toBe(true)
  })
})
