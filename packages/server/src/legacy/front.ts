/**
 * The old URLs in front of the vending machine: answered where they were asked for, counted, and with
 * a word in the log that it is time to leave them.
 */
import { isDeviceSerial } from '@certvend/client/wire'
import { createAuthenticate } from '../authentication.ts'
import { type Handler, type RequestContext, readBody } from '../handler.ts'
import type { Problem } from '../problem.ts'
import { problemOf } from '../trouble.ts'
import { createCounts, type LegacyCounts } from './counts.ts'
import {
  type Asked,
  askedBy,
  type LegacyAnswer,
  type LegacyDialect,
  type LegacyName,
  type LegacyRequest,
} from './dialect.ts'
import { isAt, type LegacyRoute, legacyDialects, refuseCollisions } from './routes.ts'
import { createAnswerShadow, type Shadows, shadowPath } from './shadow.ts'
import { createVend, type VendOptions } from './vend.ts'

export interface LegacyOptions extends VendOptions {
  readonly routes: readonly LegacyRoute[]
  /** For `/shadow` of awslabs 2020, which is not answered without. */
  readonly shadows?: Shadows
}

export interface LegacyFront {
  /** What the paths of its URLs end in. */
  readonly paths: readonly string[]
  /** Never rejects. Undefined: not one of its URLs. */
  answer(request: Request, context: RequestContext): Promise<Response | undefined>
  /**
   * Answers an event of an integration without proxy (awslabs 2018, IoT Atlas) with what the function
   * returns. Never rejects. Undefined at once: none of its dialects asks in this way.
   *
   * @param fields as the API's mapping template made them, so not to be believed in anything but
   *   being the caller's
   */
  answerDirect(fields: Readonly<Record<string, unknown>>): Promise<unknown> | undefined
  /** Since the start, by dialect. */
  counts(): ReadonlyMap<LegacyName, LegacyCounts>
}

/** An answer, and what the log says of it. */
interface Outcome {
  readonly answer: LegacyAnswer
  readonly problem?: Problem
}

const unreadable: Problem = { code: 'malformed-request', detail: 'the request names no device' }
const tooLarge: Problem = { code: 'request-too-large', detail: 'the body is too long' }

/** @throws RangeError if two routes want the same URLs */
export function createLegacyFront(options: LegacyOptions): LegacyFront {
  const { routes, clock, log, shadows } = options
  refuseCollisions(routes)
  const authenticate = createAuthenticate(options)
  const vend = createVend(options, authenticate)
  const answerShadow = shadows && createAnswerShadow(shadows, authenticate)
  const count = createCounts(options)

  const failed = (error: unknown, operation: LegacyName): Problem => {
    const reason = error instanceof Error ? error.message : String(error)
    log({ level: 'error', event: 'failed', operation, reason })
    return problemOf(error)
  }

  function refuse(
    dialect: LegacyDialect,
    problem: Problem,
    asked: Asked | undefined,
    remoteAddress: string,
  ): Outcome {
    const { code, detail } = problem
    const deviceSerial = asked?.deviceSerial
    log({
      event: 'refused',
      operation: dialect.name,
      problem: code,
      reason: detail,
      ...(isDeviceSerial(deviceSerial) && { deviceSerial }),
      ...(remoteAddress && { remoteAddress }),
    })
    count.add(dialect.name, 'refused')
    return { answer: dialect.refuse(code), problem }
  }

  async function answerAsked(
    dialect: LegacyDialect,
    asked: Asked | undefined,
    remoteAddress: string,
  ): Promise<Outcome> {
    if (!asked) return refuse(dialect, unreadable, asked, remoteAddress)
    const vending = await vend(asked, remoteAddress, dialect).catch(
      (error: unknown) => ({ ok: false, problem: failed(error, dialect.name) }) as const,
    )
    if (!vending.ok) return refuse(dialect, vending.problem, asked, remoteAddress)
    const { thingName, certificateId } = vending.vended
    log({
      event: 'enrolled',
      operation: dialect.name,
      deviceSerial: asked.deviceSerial,
      thingName,
      certificateId,
      ...(remoteAddress && { remoteAddress }),
    })
    count.add(dialect.name, 'accepted')
    return { answer: dialect.accept(vending.vended) }
  }

  async function answerRoute(
    { dialect, isShadow }: Found,
    request: Request,
    remoteAddress: string,
  ): Promise<Outcome> {
    const { method, headers } = request
    const bytes = await readBody(request)
    if (!bytes) return refuse(dialect, tooLarge, undefined, remoteAddress)
    const body = Buffer.from(bytes).toString('utf8')
    const asks: LegacyRequest = { method, headers, body, query: new URL(request.url).searchParams }
    if (isShadow) {
      const answer = await answerShadow!(asks, remoteAddress).catch((error: unknown) =>
        dialect.refuse(failed(error, dialect.name).code),
      )
      count.add(dialect.name, answer.status === 200 ? 'accepted' : 'refused')
      return { answer }
    }
    if (method !== dialect.method) return { answer: dialect.turnAway(method, clock.now()) }
    return answerAsked(dialect, dialect.read(asks), remoteAddress)
  }

  interface Found {
    readonly dialect: LegacyDialect
    readonly isShadow: boolean
  }

  function find(pathname: string): Found | undefined {
    for (const route of routes) {
      const dialect = legacyDialects[route.name]
      if (isAt(pathname, dialect.path, route)) return { dialect, isShadow: false }
      if (hasShadow(route) && isAt(pathname, shadowPath, route)) return { dialect, isShadow: true }
    }
    return undefined
  }

  const hasShadow = ({ name }: LegacyRoute): boolean =>
    name === 'awslabs-2020' && answerShadow !== undefined

  return {
    paths: routes.flatMap((route) => [
      legacyDialects[route.name].path,
      ...(hasShadow(route) ? [shadowPath] : []),
    ]),
    async answer(request, { remoteAddress }) {
      const found = find(new URL(request.url).pathname)
      if (!found) return undefined
      const startedAt = clock.now().getTime()
      const { answer, problem } = await answerRoute(found, request, remoteAddress).catch(
        (error: unknown) => {
          const failure = failed(error, found.dialect.name) // such as a body that broke off
          return { answer: found.dialect.refuse(failure.code), problem: failure }
        },
      )
      log({
        event: 'request',
        operation: found.dialect.name,
        status: answer.status,
        remoteAddress,
        durationMs: clock.now().getTime() - startedAt,
      })
      return render(answer, problem)
    },
    answerDirect(fields) {
      const dialect = routes
        .map(({ name }) => legacyDialects[name])
        .find(({ direct }) => direct?.some((name) => Object.hasOwn(fields, name)))
      if (!dialect?.direct) return undefined
      const [serial, token] = dialect.direct
      const asked = askedBy(fields[serial], fields[token])
      return answerAsked(dialect, asked, '').then(({ answer }) => answer.raw)
    },
    counts: count.all,
  }
}

/** The old URLs where `front` has them, else the vending machine's own. */
export const withLegacy =
  (front: LegacyFront, handler: Handler): Handler =>
  async (request, context) =>
    (await front.answer(request, context)) ?? handler(request, context)

function render({ status, contentType, body, headers }: LegacyAnswer, problem?: Problem): Response {
  const seconds = problem?.retryAfterMs && Math.max(1, Math.ceil(problem.retryAfterMs / 1000))
  return new Response(body, {
    status,
    headers: {
      'cache-control': 'no-store',
      'x-content-type-options': 'nosniff',
      'content-type': contentType,
      ...(seconds && { 'retry-after': String(seconds) }),
      ...headers,
    },
  })
}
