/**
 * The daemon's two doors, Unix sockets: one line of JSON asks, one answers, then the door closes.
 *
 *     control.sock  0600  the daemon's own user and root: everything
 *     query.sock    0660  the group of the daemon as well: status, aws-credentials
 *
 * The kernel decides who gets in, by the modes of the files. No key material goes through either.
 */
import net from 'node:net'
import path from 'node:path'
import {
  CertvendError,
  type ErrorCode,
  errorCodes,
  isCertvendError,
  type Remedy,
} from '@certvend/client'
import { remove } from '@certvend/client/durable'
import * as v from 'valibot'
import { configurationError, isConfigurationError } from './failure.ts'
import type { Log } from './log.ts'

export const doors = { control: 0o600, query: 0o660 } as const
export type Door = keyof typeof doors

/** What may be asked for. Whoever may only ask names no CA: the device shows itself to nobody else. */
const requests = {
  status: v.strictObject({ do: v.literal('status') }),
  'aws-credentials': v.strictObject({
    do: v.literal('aws-credentials'),
    endpoint: v.string(),
    roleAlias: v.string(),
    /** PEM of the only CAs that may vouch for the endpoint; through control.sock only. */
    trustAnchors: v.optional(v.string()),
  }),
  reload: v.strictObject({ do: v.literal('reload') }),
  /**
   * Settled when an attempt has succeeded or failed; with `again`, beside the credential in use, and
   * with `discard` in place of a successor that is refused.
   */
  enroll: v.strictObject({
    do: v.literal('enroll'),
    again: v.optional(v.boolean()),
    discard: v.optional(v.boolean()),
    token: v.optional(v.string()),
  }),
  renew: v.strictObject({ do: v.literal('renew') }),
  forget: v.strictObject({ do: v.literal('forget') }),
} as const

export type Request = {
  [Name in keyof typeof requests]: v.InferOutput<(typeof requests)[Name]>
}[keyof typeof requests]

export type Answer =
  | { readonly ok: true; readonly result?: unknown }
  | {
      readonly ok: false
      readonly message: string
      /** One of `docs/errors.md`, or `ERR_CONFIGURATION`; absent when the request itself is wrong. */
      readonly code?: ErrorCode | 'ERR_CONFIGURATION'
      readonly remedy?: Remedy
      readonly hint?: string
    }

const isForAll = (request: Request): boolean =>
  request.do === 'status' ||
  (request.do === 'aws-credentials' && request.trustAnchors === undefined)

const longestRequest = 64 * 1024
/** A status is a few kB; root does not gather whatever the daemon's user has put there. */
const longestAnswer = 1024 * 1024
const patienceMs = 5000
const mostCallers = 16

export const doorFile = (directory: string, door: Door): string =>
  path.join(directory, `${door}.sock`)

/** As many bytes as an address has room for (unix(7)). */
const longestName = process.platform === 'linux' ? 107 : 103

/** Node cuts off what is longer: the door would be another one, in a directory that nobody judged. */
const isTooLong = (file: string): boolean => Buffer.byteLength(file) > longestName

/**
 * Opens both doors in `directory`, in place of what an earlier process left; the caller holds the
 * store's lock, so nobody else answers there.
 *
 * @param answer what it throws of ours is the answer, too.
 * @param options.log is told of what else it throws.
 * @param options.patienceMs how long a caller may take to ask, and again to read and go, in
 *   milliseconds. Default 5 s.
 * @returns closes them, and removes the files.
 */
export async function openDoors(
  directory: string,
  answer: (request: Request) => unknown,
  { log, patienceMs: longestMs = patienceMs }: { log: Log; patienceMs?: number },
): Promise<() => void> {
  const servers: net.Server[] = []
  const close = (): void => {
    for (const server of servers) server.close()
  }
  try {
    for (const door of Object.keys(doors) as Door[]) {
      const file = doorFile(directory, door)
      if (isTooLong(file))
        throw new Error(
          `${file} is longer than the ${longestName} bytes that a socket's name may have`,
        )
      remove(file)
      const reply = (line: string) => judge(line, door, answer).then(JSON.stringify)
      servers.push(await listen(file, doors[door], { reply, log, longestMs }))
    }
  } catch (error) {
    close()
    throw error
  }
  return close
}

async function judge(
  line: string,
  door: Door,
  answer: (request: Request) => unknown,
): Promise<Answer> {
  let asked: unknown
  try {
    asked = JSON.parse(line)
  } catch {
    return { ok: false, message: 'a request is one line of JSON: {"do":"status"}' }
  }
  const name = typeof asked === 'object' && asked && 'do' in asked ? String(asked.do) : ''
  if (!Object.hasOwn(requests, name))
    return { ok: false, message: `a request is one of ${Object.keys(requests).join(', ')}` }
  const parsed = v.safeParse(requests[name as keyof typeof requests], asked)
  if (!parsed.success)
    // Never the value: it may be a token.
    return { ok: false, message: `${name}: ${v.getDotPath(parsed.issues[0])} is not as expected` }
  if (door === 'query' && !isForAll(parsed.output))
    return { ok: false, message: `${name} is asked through control.sock` }
  try {
    const result = await answer(parsed.output)
    return { ok: true, ...(result === undefined ? {} : { result }) }
  } catch (error) {
    return refusal(error as Error)
  }
}

function refusal(error: Error): Answer {
  if (!isCertvendError(error) && !isConfigurationError(error)) throw error
  const { code, message, hint } = error
  const remedy = isCertvendError(error) ? { remedy: error.remedy } : {}
  return { ok: false, message, code, ...remedy, ...(hint === undefined ? {} : { hint }) }
}

const defect: Answer = {
  ok: false,
  message: 'the agent failed at this by a defect of its own',
  hint: 'please report it, with the line socket.failed of its log',
}

interface Listening {
  readonly reply: (line: string) => Promise<string>
  readonly log: Log
  readonly longestMs: number
}

function listen(
  file: string,
  mode: number,
  { reply, log, longestMs }: Listening,
): Promise<net.Server> {
  const server = net.createServer((socket) => {
    let text = ''
    let asked = false
    // Not of idleness: who drips, or never reads and goes, would hold one of few places for ever.
    const atDeadline = (end: () => void): void =>
      AbortSignal.timeout(longestMs).addEventListener('abort', end)
    atDeadline(() => asked || socket.destroy())
    socket.setEncoding('utf8')
    socket.on('error', () => {})
    socket.on('data', (more: string) => {
      text += more
      const end = text.indexOf('\n')
      if (end >= 0) {
        socket.removeAllListeners('data')
        asked = true // it is we who take our time now
        void reply(text.slice(0, end))
          .catch((error: unknown) => {
            // A defect, and no reason to take a device offline that is not.
            log({ event: 'socket.failed', message: String(error) })
            return JSON.stringify(defect)
          })
          .then((answer) => {
            socket.end(`${answer}\n`)
            atDeadline(() => socket.destroy())
          })
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

/**
 * Asks the daemon; nothing when nobody answers there, or not this user.
 *
 * @param longestMs how long the answer may take, in milliseconds. Default 5 s.
 */
export function ask(
  directory: string,
  door: Door,
  request: Request,
  longestMs: number = patienceMs,
): Promise<Answer | undefined> {
  const file = doorFile(directory, door)
  if (isTooLong(file)) return Promise.resolve(undefined)
  return new Promise((resolve) => {
    const socket = net.connect(file)
    let text = ''
    AbortSignal.timeout(longestMs).addEventListener('abort', () => socket.destroy())
    socket.setEncoding('utf8')
    socket.once('connect', () => socket.write(`${JSON.stringify(request)}\n`))
    socket.on('error', () => {})
    socket.on('data', (more: string) => {
      text += more
      if (text.length > longestAnswer) socket.destroy()
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

/**
 * What the daemon answered.
 *
 * @throws what the daemon's refusal was, as if it had been met here
 */
export function resultOf(answer: Answer): unknown {
  if (answer.ok) return answer.result
  const { code, message, hint, remedy } = answer
  const known = errorCodes.find((one) => one === code)
  if (!known) throw configurationError(message, hint)
  throw new CertvendError(known, message, {
    ...(hint === undefined ? {} : { hint }),
    ...(remedy === undefined ? {} : { remedy }),
  })
}
