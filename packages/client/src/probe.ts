/**
 * Which dialect a URL seems to speak, found out without spending anything.
 *
 * Nothing is asked that could be granted: a GET that only says who is there, or a request for a serial
 * and a token of random digits, which no vending machine knows. What each dialect does with that was
 * read in its source: one look into its table, and a refusal. No request is repeated.
 */
import { randomBytes } from 'node:crypto'
import * as v from 'valibot'
import { type Clock, systemClock } from './clock.ts'
import type { DialectName } from './dialects/choice.ts'
import { loadDialect } from './dialects/load.ts'
import { asked, firstBytes, jsonOf, member, textOf } from './dialects/reply.ts'
import { CertvendError } from './errors.ts'
import type { ProxyOptions } from './proxy.ts'
import type { Send, SendRequest, SendResponse } from './send.ts'
import { parseTrustAnchors } from './trust.ts'
import { quote } from './verdict.ts'
import { parseCaCertificates, paths, resolve } from './wire.ts'

export interface ProbeOptions extends ProxyOptions {
  readonly signal?: AbortSignal
  /** For each of the few exchanges, in milliseconds. Default 10 000. */
  readonly deadlineMs?: number
  readonly clock?: Clock
  readonly send?: Send
  /** Called before each exchange. */
  readonly onTry?: (trial: Pick<Trial, 'dialect' | 'request'>) => void
}

/** One request, and what it showed. */
export interface Trial {
  readonly dialect: DialectName
  /** Method and path, without the query. */
  readonly request: string
  /** HTTP status; absent when nothing came back. */
  readonly status?: number
  /** What was said, in its first printable bytes, or why nothing was. */
  readonly answer: string
  readonly recognised: boolean
}

/** What a URL was found to speak. */
export interface ProbeReport {
  readonly url: string
  /** Every dialect that was recognised; one server may stand in for several vending machines of old. */
  readonly dialects: readonly DialectName[]
  /** Every request that was made, in order. */
  readonly trials: readonly Trial[]
}

interface Question {
  readonly dialect: DialectName
  readonly request: (url: URL) => SendRequest
  /** Whether an answer is this dialect's and no other's. */
  readonly recognises: (response: SendResponse) => boolean | Promise<boolean>
}

const accept = { accept: 'application/json, text/plain' }
const get = (url: URL): SendRequest => ({ method: 'GET', url, headers: accept })

/** What API Gateway says for itself tells only that it is API Gateway. */
const own = async (dialect: DialectName, response: SendResponse): Promise<boolean> => {
  const known = (await loadDialect({ name: dialect })).recognise(response)
  // A stranger is turned away, and that leaves nothing; a word for every server comes with its status.
  return known?.leaves === 'nothing' && known.status === undefined
}

const ownOfGateway2021 = async (response: SendResponse): Promise<boolean> =>
  (await loadDialect({ name: 'gateway-2021' })).recognise(response)?.code === 'ERR_CLAIM_REFUSED' &&
  member(jsonOf(response), 'message') !== 'Forbidden'

/** Long enough that nobody has it, and of the letters that every table takes. */
const nobody = (): string => `certvend-probe-${randomBytes(12).toString('hex')}`

const getcert = (url: URL): SendRequest => {
  const target = asked(url, '/getcert')
  target.searchParams.set('serialNumber', nobody())
  target.searchParams.set('deviceToken', nobody())
  return get(target)
}

/** `true` and seconds since 1970; before that it was "OK", without a time. */
const Pong = v.strictObject({
  response: v.union([v.literal(true), v.string()]),
  time: v.optional(v.unknown()),
})

const questions: readonly Question[] = [
  {
    dialect: 'certvend',
    request: (url) => get(resolve(url, paths.cacerts)),
    recognises: ({ status, body }) => status === 200 && parseCaCertificates(body).ok,
  },
  {
    // Its ping. A POST could be granted to whoever has the fleet's token, and is not made.
    dialect: 'gateway-2021',
    request: (url) => get(asked(url, '/register')),
    recognises: (response) => v.is(Pong, jsonOf(response)) || ownOfGateway2021(response),
  },
  {
    dialect: 'iot-atlas',
    request: (url) => ({
      method: 'POST',
      url: asked(url, '/registration'),
      headers: { ...accept, 'content-type': 'application/json' },
      body: JSON.stringify({ device_uid: nobody(), device_token: nobody() }),
    }),
    recognises: (response) => own('iot-atlas', response),
  },
  {
    dialect: 'awslabs-2018',
    request: getcert,
    recognises: (response) => own('awslabs-2018', response),
  },
  {
    dialect: 'awslabs-2020',
    request: getcert,
    // 500 for everything, where "Bad Request" is anybody's 400.
    recognises: async (response) =>
      (await own('awslabs-2020', response)) &&
      (response.status === 500 || textOf(response) === 'Access Denied'),
  },
  {
    dialect: 'express-2017',
    request: (url) => get(new URL(url)),
    recognises: (response) => textOf(response)?.trim() === 'Access Deny!',
  },
]

/**
 * Asks the URL in every dialect, harmlessly: five requests.
 *
 * @param server pins as for {@link createVendingServer}; none with `http://`, where only express-2017
 *   is asked for.
 * @throws {CertvendError} when the server cannot be reached or is not vouched for; what it answers,
 *   whatever it is, is in the report
 * @throws TypeError when URL or pins cannot be used
 */
export async function probeVendingServer(
  server: { readonly url: string | URL; readonly pins?: string | readonly string[] },
  options: ProbeOptions = {},
): Promise<ProbeReport> {
  const text = String(server.url)
  if (!URL.canParse(text)) throw new TypeError('the vending URL is not a URL')
  const url = new URL(text)
  const plain = url.protocol === 'http:'
  if (!plain && url.protocol !== 'https:')
    throw new TypeError('the vending URL must start with https:// or http://')
  if (url.username || url.password || url.search || url.hash)
    throw new TypeError('the vending URL must not hold credentials, a query or a fragment')
  if (plain && server.pins !== undefined && server.pins.length > 0)
    throw new TypeError('no pin can vouch for an http:// URL')
  const { clock = systemClock, signal, deadlineMs = 10_000, onTry = () => {} } = options
  const pins = plain ? { certificates: [], pem: '' } : parseTrustAnchors(server.pins ?? '')
  const send = options.send ?? (await import('./https.ts')).createSend(pins, clock, options)
  const limits = { deadlineMs, replyBytes: 64 * 1024, ...(signal ? { signal } : {}) }
  const trials: Trial[] = []
  const answers = new Map<string, SendResponse | CertvendError>()
  for (const { dialect, request: make, recognises } of questions) {
    if (plain && dialect !== 'express-2017') continue
    const made = make(url)
    const request = `${made.method} ${made.url.pathname}`
    // Both generations of awslabs are told apart by one answer.
    let answer = answers.get(request)
    if (!answer) {
      onTry({ dialect, request })
      answer = await send(made, limits).catch((error: unknown) => {
        if (!(error instanceof CertvendError) || !isAnswer(error)) throw error
        return error
      })
      answers.set(request, answer)
    }
    if (answer instanceof CertvendError) {
      trials.push({ dialect, request, answer: answer.message, recognised: false })
      continue
    }
    const recognised = await recognises(answer)
    const { status } = answer
    trials.push({ dialect, request, status, answer: shown(answer), recognised })
  }
  const dialects = trials.filter(({ recognised }) => recognised).map(({ dialect }) => dialect)
  return { url: url.href, dialects, trials }
}

/** Whether something is there, though it did not say much. */
const isAnswer = ({ code }: CertvendError): boolean =>
  code === 'ERR_REPLY_LOST' || code === 'ERR_REPLY_MALFORMED'

function shown(response: SendResponse): string {
  const json = jsonOf(response)
  const said =
    typeof json === 'string'
      ? json
      : [member(json, 'message'), member(member(json, 'payload'), 'message')].find(
          (one) => typeof one === 'string',
        )
  return typeof said === 'string' ? quote(said) : firstBytes(response)
}
