/** The daemon's doors, when answering fails by a defect. */
import { expect, it } from 'vitest'
import type { LogEvent } from '../src/log.ts'
import { ask, type Door, openDoors } from '../src/socket.ts'
import { makeFolder } from './folder.ts'

it.each(['control', 'query'] as const satisfies Door[])(
  'a defect is told through %s.sock and to the log, and the next is answered',
  async (door) => {
    const { path } = makeFolder()
    const events: LogEvent[] = []
    const results = [
      () => Promise.reject(new TypeError('no such thing')),
      () => ({ cannot: 1n }), // what JSON has no word for
      () => 'fine',
    ]
    const close = await openDoors(
      path,
      () => results.shift()?.(),
      (event) => events.push(event),
    )
    try {
      const said = { ok: false, message: expect.stringContaining('a defect of its own') }
      expect(await ask(path, door, { do: 'status' })).toMatchObject(said)
      expect(await ask(path, door, { do: 'status' })).toMatchObject(said)
      expect(await ask(path, door, { do: 'status' })).toEqual({ ok: true, result: 'fine' })
    } finally {
      close()
    }
    expect(events).toEqual([
      { event: 'socket.failed', message: 'TypeError: no such thing' },
      { event: 'socket.failed', message: expect.stringContaining('BigInt') },
    ])
  },
)
