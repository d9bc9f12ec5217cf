/** The daemon's doors, when answering fails by a defect, and when callers stay in them. */
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { expect, it } from 'vitest'
import type { LogEvent } from '../src/log.ts'
import { ask, type Door, doorFile, openDoors } from '../src/socket.ts'
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
    const close = await openDoors(path, () => results.shift()?.(), {
      log: (event) => events.push(event),
    })
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

/** As many as a door holds. */
const callers = 16

it.each<[title: string, says: (socket: net.Socket) => void]>([
  ['asks byte by byte', (socket) => void setInterval(() => socket.write(' '), 10).unref()],
  ['neither reads its answer nor goes', (socket) => socket.pause().write('{"do":"status"}\n')],
])('who %s leaves the door to others in the end', async (_title, says) => {
  const { path } = makeFolder()
  const close = await openDoors(path, () => 'fine', { log: () => {}, patienceMs: 100 })
  const file = doorFile(path, 'query')
  const sockets = Array.from({ length: callers }, () =>
    net.connect({ path: file, allowHalfOpen: true }).on('error', () => {}),
  )
  try {
    for (const socket of sockets) says(socket)
    await expect
      .poll(() => ask(path, 'query', { do: 'status' }), { timeout: 20_000 })
      .toEqual({ ok: true, result: 'fine' })
  } finally {
    for (const socket of sockets) socket.destroy()
    close()
  }
})

it.each<[title: string, says: (socket: net.Socket) => void]>([
  ['never comes to its end', (socket) => void setInterval(() => socket.write(' '), 10).unref()],
  ['has 4 MB', (socket) => socket.end(`"${'x'.repeat(4_000_000)}"`)],
])('an answer that %s is none', async (_title, says) => {
  const { path } = makeFolder()
  const server = net.createServer((socket) => {
    socket.on('error', () => {})
    says(socket)
  })
  await new Promise<void>((resolve) => server.listen(doorFile(path, 'query'), resolve))
  try {
    expect(await ask(path, 'query', { do: 'status' }, 2000)).toBeUndefined()
  } finally {
    server.close()
  }
})

it('a name that is too long for a socket is refused and asked for nothing, never cut off', async () => {
  const folder = makeFolder()
  const directory = path.join(folder.path, 'd'.repeat(120))
  fs.mkdirSync(directory)
  const heard: string[] = []
  const elsewhere = net.createServer((socket) => {
    socket.on('data', (bytes) => heard.push(String(bytes))).on('error', () => {})
    socket.end('{"ok":true}')
  })
  // What is left of the name, where anybody may have been first.
  const cut = Buffer.from(doorFile(directory, 'control')).subarray(0, 107).toString()
  await new Promise<void>((resolve) => elsewhere.listen(cut, resolve))
  const opening = openDoors(directory, () => 'fine', { log: () => {} })
  await expect(opening).rejects.toThrow('control.sock is longer than the 10')
  const request = { do: 'enroll', token: 'secret' } as const
  expect(await ask(directory, 'control', request)).toBeUndefined()
  elsewhere.close()
  expect(heard).toEqual([])
  expect(fs.readdirSync(directory)).toEqual([])
})
