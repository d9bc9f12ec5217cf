/**
 * What the old dialects' replies have in common: JSON that was made by hand, PEM that went through
 * shells and spreadsheets, and a private key that no message may show.
 */
import * as v from 'valibot'
import { CertvendError } from '../errors.ts'
import type { SendResponse } from '../send.ts'
import { mediaType, quote } from '../verdict.ts'
import { resolve } from '../wire.ts'
import type { Reading, Refusal } from './dialect.ts'

/** The URL to ask: the configured one with the dialect's path, unless it ends in that already. */
export const asked = (url: URL, path: string): URL =>
  url.pathname.endsWith(path) ? new URL(url) : resolve(url, path)

/** The body as text, without the byte order mark that editors put before it; nothing where it is not UTF-8. */
export function textOf({ body }: SendResponse): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true }).decode(body)
  } catch {
    return undefined
  }
}

/** The body's JSON; nothing where it is none, or says the same key twice. */
export function jsonOf(response: SendResponse): unknown {
  const text = textOf(response)
  if (text === undefined) return undefined
  try {
    const value: unknown = JSON.parse(text)
    return repeatsKey(text) ? undefined : value
  } catch {
    return undefined
  }
}

/** Whether an object in `json`, which is sound, has a key twice: readers differ in which they take. */
function repeatsKey(json: string): boolean {
  const open: Set<string>[] = []
  let last = ''
  for (const [token] of json.matchAll(/"(?:[^"\\]|\\.)*"|[{}[\]:]/g)) {
    if (token === '{' || token === '[') open.push(new Set())
    else if (token === '}' || token === ']') open.pop()
    else if (token === ':') {
      const keys = open.at(-1)
      const key = JSON.parse(last) as string
      if (keys?.has(key)) return true
      keys?.add(key)
    } else last = token
  }
  return false
}

/** A member of an object that came as JSON. */
export const member = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? (value as Record<string, unknown>)[name]
    : undefined

/** PEM with line feeds, whatever it went through: carriage returns, escaped line breaks, a byte order mark. */
const normalisePem = (text: string): string =>
  `${text
    .replace(/^\uFEFF/, '')
    .replaceAll('\\r', '')
    .replaceAll('\\n', '\n')
    .replace(/[ \t\r]+$/gm, '')
    .trim()}\n`

const blocks = (text: string): number => text.split('-----BEGIN ').length - 1

/** One PEM certificate. */
export const Certificate = v.pipe(
  v.string(),
  v.transform(normalisePem),
  v.check((text) => blocks(text) === 1, 'not exactly one PEM block'),
  v.check(
    (text) => /^-----BEGIN CERTIFICATE-----\n[\s\S]+\n-----END CERTIFICATE-----\n$/.test(text),
    'not a PEM certificate',
  ),
)

/** One PEM private key, not encrypted: PKCS#8 or PKCS#1. */
export const Key = v.pipe(
  v.string(),
  v.transform(normalisePem),
  v.check((text) => blocks(text) === 1, 'not exactly one PEM block'),
  v.check(
    (text) =>
      /^-----BEGIN (RSA |EC )?PRIVATE KEY-----\n[\s\S]+\n-----END \1?PRIVATE KEY-----\n$/.test(
        text,
      ),
    'not a PEM private key',
  ),
)

/** What {@link firstBytes} never shows: where a key may begin, and anything that long and that random. */
const keyBegins = /private|BEGIN [A-Z ]*KEY/i
const random = /[A-Za-z0-9+/=_-]{20,}/g

/** The first bytes of a reply, for a person: printable, without a token, never of a key. */
export function firstBytes(response: SendResponse, secret?: string): string {
  const text = Buffer.from(response.body).toString('latin1')
  const cut = text.search(keyBegins)
  return quote((cut < 0 ? text : text.slice(0, cut)).slice(0, 400), secret)
    .replaceAll(random, '…')
    .slice(0, 80)
}

/** An answer that is none of this dialect's, and what it looked like. */
export function malformed(
  response: SendResponse,
  { host, secret }: Reading,
  reason?: string,
): CertvendError {
  const { status, body } = response
  const type = quote(mediaType(response), secret) || 'no media type'
  const shown =
    body.length === 0 ? 'nothing' : `${body.length} bytes: ${firstBytes(response, secret)}`
  if (status >= 300 && status < 400)
    return new CertvendError(
      'ERR_REPLY_MALFORMED',
      `${host} answered with a redirect (${status}), which is never followed`,
      { hint: 'check the vending URL: it must be the one that answers, not one that forwards' },
    )
  return new CertvendError(
    'ERR_REPLY_MALFORMED',
    `${host} answered ${status} with ${type}, not in this dialect${reason ? ` (${reason})` : ''}; ${shown}`,
    {
      hint: 'another dialect, or something else than a vending machine, may answer there: certvend probe URL tells',
    },
  )
}

/** The value in a reply of the shape that `schema` says, or a malformed reply. */
export function shaped<T>(
  schema: v.GenericSchema<unknown, T>,
  response: SendResponse,
  reading: Reading,
): T {
  const json = jsonOf(response)
  if (json === undefined) throw malformed(response, reading, 'no JSON, or a key that comes twice')
  const result = v.safeParse(schema, json)
  if (result.success) return result.output
  const issue = result.issues[0]
  throw malformed(response, reading, `${v.getDotPath(issue) ?? 'the whole'} is not as it must be`)
}

/** The refusal in `refusals` that these words are, said with this status. */
export const find = (
  refusals: readonly Refusal[],
  said: string | undefined,
  status: number,
): Refusal | undefined =>
  refusals.find((one) => one.said === said && (one.status === undefined || one.status === status))
