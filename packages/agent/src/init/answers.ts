/** The questions, each asked until its answer has been tried and will do. */
import fs from 'node:fs'
import path from 'node:path'
import {
  amazonTrustAnchors,
  createClaim,
  createVendingServer,
  type DialectName,
  parseTrustAnchors,
  systemClock,
} from '@certvend/client'
import {
  describeCertificate,
  type ShownCertificate,
  type VendingTrace,
} from '@certvend/client/trace'
import type { FindingDocument } from '../doctor/diagnosis.ts'
import { attempt } from '../doctor/local.ts'
import { readPin } from '../enrollment.ts'
import { configurationError } from '../failure.ts'
import { readSerial } from '../serial.ts'
import type { Flags } from '../settings.ts'
import type { Terminal } from '../terminal.ts'
import { readToken } from '../token.ts'
import { day } from '../wording.ts'
import type { Draft } from './draft.ts'
import type { Questions } from './questions.ts'
import { tryPins, tryUrl } from './trials.ts'

/** An answer that was tried and does not do. */
interface Refusal {
  readonly found: string
  readonly mend: string
  readonly finding?: FindingDocument
}
type Outcome<T> = { readonly ok: true; readonly value: T } | ({ readonly ok: false } & Refusal)

export interface Told {
  readonly flags: Flags
  readonly terminal: Terminal
  readonly environment: NodeJS.ProcessEnv
  /** Absent where nobody is at the terminal: then what flags say must do. */
  readonly questions: Questions | undefined
}

/** @throws what {@link isRefused} knows, where nobody can be asked again */
export async function askAll(file: string, told: Told): Promise<Draft> {
  const { flags, terminal, environment } = told
  const options = { clock: systemClock, environment }

  const { url, trace } = await answered<{ url: URL; trace: VendingTrace }>(told, {
    given: flags.server,
    question: 'vending machine (https://…): ',
    async judge(answer) {
      const text = answer.includes('://') ? answer : `https://${answer}`
      const url = judgeUrl(text)
      if (!url.ok) return url
      terminal.progress(`looking at the way to ${url.value.host} …`, { passing: true })
      const tried = await tryUrl(url.value, options)
      return tried.ok
        ? { ok: true, value: { url: url.value, trace: tried.value } }
        : refused(tried.finding)
    },
  })
  terminal.progress(`${url.host} answers`)

  const offered = trace.chain.find(({ isCa }) => isCa)
  const pinned = await answered<{ pem: string; dialect: DialectName }>(told, {
    given: flags.pin?.[0],
    question: offered
      ? 'file with the CA certificate to pin, or Enter to see what the server shows: '
      : 'file with the CA certificate to pin: ',
    async judge(answer) {
      const taken = await pinOf(answer, offered, told)
      if (!taken.ok) return taken
      const more = (flags.pin ?? [])
        .slice(1)
        .map((name) => readPin({ value: path.resolve(name), from: '--pin' }))
      const pem = [taken.value, ...more].join('')
      terminal.progress(`letting the pin judge ${url.host} …`, { passing: true })
      const tried = await tryPins(url, pem, options)
      if (!tried.ok) return refused(tried.finding)
      const { vouchedBy, dialect } = tried.value
      terminal.progress(
        `${vouchedBy?.subject ?? 'it'} vouches for ${url.host}, which speaks ${dialect}`,
      )
      return { ok: true, value: { pem, dialect } }
    },
  })

  const { pem: pins, dialect } = pinned
  const own = attempt(() => readSerial({ kind: 'default', from: 'the serial' }, { environment }))
  const serial = await answered<string | undefined>(told, {
    given: flags.serial ?? (told.questions ? undefined : ''),
    question: own.ok ? `serial, or Enter for this device's own (${own.value.value}): ` : 'serial: ',
    async judge(answer) {
      if (answer === '' && own.ok) return { ok: true, value: undefined }
      const read = attempt(() => readSerial({ kind: 'literal', value: answer, from: 'serial' }))
      return read.ok ? { ok: true, value: read.value.value } : wrong(read.error)
    },
  })

  const token = await answered<string | undefined>(told, {
    given: flags.tokenFile === undefined ? undefined : path.resolve(flags.tokenFile),
    question:
      'one-time token (it is not shown), a file that holds it, or Enter to put it there later: ',
    hidden: true,
    async judge(answer) {
      if (answer === '' && told.questions) return { ok: true, value: undefined }
      const named = path.isAbsolute(answer) || fs.existsSync(answer)
      const source = { value: path.resolve(answer), from: 'the token' }
      const read = attempt(() =>
        named ? readToken(source, environment, dialect) : judgeToken(answer, dialect),
      )
      return read.ok ? { ok: true, value: read.value } : wrong(read.error)
    },
  })
  return {
    file,
    url: url.href.replace(/\/$/, ''),
    pins,
    dialect,
    ...(serial === undefined ? {} : { serial }),
    ...(token === undefined ? {} : { token }),
    ...(flags.stateDir === undefined ? {} : { stateDirectory: path.resolve(flags.stateDir) }),
  }
}

interface Question<T> {
  readonly given: string | undefined
  readonly question: string
  readonly hidden?: boolean
  judge(answer: string): Promise<Outcome<T>>
}

/** The answer that was given, else asked for until one will do. */
async function answered<T>({ questions, terminal }: Told, one: Question<T>): Promise<T> {
  const { given, question, hidden = false, judge } = one
  let answer = given ?? (await questions?.ask(question, { hidden })) ?? ''
  for (;;) {
    const outcome = await judge(answer)
    if (outcome.ok) return outcome.value
    if (!questions)
      throw Object.assign(new Error(outcome.found), { refusal: outcome satisfies Refusal })
    terminal.warn(outcome.found, outcome.mend)
    answer = await questions.ask(question, { hidden })
  }
}

export const isRefused = (error: unknown): error is Error & { readonly refusal: Refusal } =>
  error instanceof Error && 'refusal' in error

const refused = (finding: FindingDocument): { ok: false } & Refusal => ({
  ok: false,
  found: finding.found,
  mend: finding.mend,
  finding,
})

const wrong = ({ message, hint }: { message: string; hint?: string }): { ok: false } & Refusal => ({
  ok: false,
  found: message,
  mend: hint ?? 'try again',
})

function judgeUrl(text: string): Outcome<URL> {
  try {
    return {
      ok: true,
      value: createVendingServer({ url: text, pins: amazonTrustAnchors().pem }).url,
    }
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    return wrong({ message: error.message, hint: 'as the operator gave it: https://HOST' })
  }
}

/** @throws a configuration error, which holds nothing of what was typed */
function judgeToken(token: string, dialect: DialectName): string {
  try {
    return createClaim({ deviceSerial: 'any', token, dialect }).token
  } catch {
    throw configurationError(
      'that is neither a token nor the name of a file',
      'a token is 8 to 512 letters, digits and -._~+/ without spaces',
    )
  }
}

/** From a file, or, once a person has compared the fingerprint, what the server has shown. */
async function pinOf(
  answer: string,
  offered: ShownCertificate | undefined,
  { questions, terminal }: Told,
): Promise<Outcome<string>> {
  if (answer !== '' || !offered || !questions) {
    const read = attempt(() => readPin({ value: path.resolve(answer), from: 'the pin' }))
    if (!read.ok) return wrong(read.error)
    for (const one of parseTrustAnchors(read.value).certificates)
      terminal.progress(describe(describeCertificate(one)))
    return { ok: true, value: read.value }
  }
  terminal.progress(describe(offered))
  terminal.progress('compare the fingerprint with the operator’s, by another way than this network')
  return (await questions.confirm('is it the same?', false))
    ? { ok: true, value: offered.pem }
    : wrong({
        message: 'a CA that nobody has compared is not pinned',
        hint: 'ask the operator for the file, tls/pin.pem on the vending machine',
      })
}

const describe = ({ subject, issuer, sha256, notAfter }: ShownCertificate): string =>
  [
    'about to pin',
    `  subject      ${subject}`,
    `  issued by    ${issuer}`,
    `  valid until  ${day(notAfter)}`,
    `  SHA-256      ${(sha256.match(/../g) ?? []).join(':').toUpperCase()}`,
  ].join('\n')
