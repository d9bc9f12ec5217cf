/**
 * The daemon's two doors, Unix sockets: one line of JSON asks, one answers, then the door closes.
 *
 *     control.sock  0600  the daemon's own user and root: reload, and all of the other
 *     query.sock    0660  the group of the daemon as well: status
 *
 * The kernel decides who gets in, by the modes of the files. No key material goes through either.
 */
import net from 'node:net'
import path from 'node:path'
import { remove } from '@certvend/client/durable'

export const doors = { control: 0o600, query: 0o660 } as const
export type Door = keyof typeof doors

/** What is asked for. */
export const requests = ['status', 'reload'] as const
export type Request = (typeof requests)[number]

const open: Readonly<Record<Door, readonly Request[]>> = {
  control: ['status', 'reload'],
  query: ['status'],
}

export type Answer =
  | { readonly ok: true; readonly result?: unknown }
  | { readonly ok: false; readonly message: string }

const longestRequest = 1024
const patienceMs = 5000
const mostCallers = 16

export const doorFile = (directory: string, door: Door): string =>
  path.join(directory, `${door}.sock`)

/**
 * Opens both doors in `directory`, in place of what an earlier process left; the caller holds the
 * store's lock, so nobody else answers there.
 *
 * @returns closes them, and removes the files.
 */
export async function openDoors(
  directory: string,
  answer: (request: Request) => Answer,
): Promise<() => void> {
  const servers: net.Server[] = []
  const close = (): void => {
    for (const server of servers) server.close()
  }
  try {
    for (const door of Object.keys(doors) as Door[]) {
      const file = doorFile(directory, door)
      remove(file)
      servers.push(await listen(file, doors[door], (line) => judge(line, door, answer)))
    }
  } catch (error) {
    close()
    throw error
  }
  return close
}

function judge(line: string, door: Door, answer: (request: Request) => Answer): Answer {
  let asked: unknown
  try {
    asked = JSON.parse(line)
  } catch {
    return { ok: false, message: 'a request is one line of JSON: {"do":"status"}' }
  }
  const name = typeof asked === 'object' && asked && 'do' in asked ? asked.do : undefined
  const request = requests.find((known) => known === name)
  if (!request) return { ok: false, message: `a request is one of ${requests.join(', ')}` }
  if (!open[door].includes(request))
    return { ok: false, message: `${request} is asked through control.sock` }
  return answer(request)
}

function listen(file: string, mode: number, reply: (line: string) => Answer): Promise<net.Server> {
  const server = net.createServer((socket) => {
    let text = ''
    socket.setEncoding('utf8').setTimeout(patienceMs, () => socket.destroy())
    socket.on('error', () => {})
    socket.on('data', (more: string) => {
      text += more
      const end = text.indexOf('\n')
      if (end >= 0) {
        socket.removeAllListeners('data')
        socket.end(`${JSON.stringify(reply(text.slice(0, end)))}\n`)
      } else if (text.length > longestRequest) socket.destroy()
    })
  })
  server.maxConnections = mostCallers
  server.unref()
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    // The file is made by bind(2), at once: nobody slips in before its mode is set.
    const before = process.umask(0o777 & ~mode)
    server.listen(file, () => resolve(server))
    process.umask(before)
  })
}

/** Asks the daemon; nothing when nobody answers there, or not this user. */
export function ask(directory: string, door: Door, request: Request): Promise<Answer | undefined> {
  return new Promise((resolve) => {
    const socket = net.connect(doorFile(directory, door))
    let text = ''
    socket.setEncoding('utf8').setTimeout(patienceMs, () => socket.destroy())
    socket.once('connect', () => socket.write(`${JSON.stringify({ do: request })}\n`))
    socket.on('error', () => {})
    socket.on('data', (more: string) => {
      text += more
    })
    socket.once('close', () => {
      try {
        resolve(JSON.parse(text) as Answer)
      } catch {
        resolve(undefined)
      }
    })
  })
}
