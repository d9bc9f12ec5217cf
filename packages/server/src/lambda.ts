/**
 * The front door behind API Gateway: events of a Lambda function around a {@link Handler}.
 *
 * The same function serves an HTTP API, a REST API, and an API of an older vending machine whose
 * integration it was put behind: stage names and base paths before a known path are passed over, and
 * events without a proxy integration get their answers raw. Addresses come from API Gateway's context.
 */
import type { Handler, RequestContext } from './handler.ts'
import { certificateId } from './issuer/local.ts'
import { type Call, type Event, type Result, readEvent, toResult } from './lambda/event.ts'
import { renderProblem } from './problem.ts'

export interface LambdaOptions {
  /** Request targets that the handler knows. A caller's path that ends in one of them is that one. */
  readonly paths: readonly string[]
  /**
   * Answers the events of the vending machines that had no proxy integration, or undefined where it
   * does not know them. By default nobody does.
   */
  readonly answerDirect?: (
    fields: Extract<Event, { form: 'direct' }>['fields'],
  ) => Promise<unknown> | undefined
}

/** Answers while the vending machine behind the door cannot be opened. */
export const notOpen: Handler = async () =>
  renderProblem({ code: 'busy', detail: 'the vending machine cannot start', retryAfterMs: 10_000 })

/** A Lambda function's handler, without the context that it does not look at. */
export type Lambda = (event: unknown) => Promise<unknown>

/**
 * Wraps `handler`. What it returns rejects only on an event that no API Gateway sends and no old
 * integration makes; the message repeats nothing of it.
 */
export function createLambda(handler: Handler, options: LambdaOptions): Lambda {
  return async (event) => {
    const read = readEvent(event)
    if (read.form === 'proxy') return answerProxy(handler, read.call, options.paths)
    const answer = read.form === 'direct' ? options.answerDirect?.(read.fields) : undefined
    if (answer === undefined)
      throw new Error('this function answers events of API Gateway, and this is none that it knows')
    return answer
  }
}

async function answerProxy(
  handler: Handler,
  call: Call,
  paths: readonly string[],
): Promise<Result> {
  const request = toRequest(call, paths)
  return toResult(
    request
      ? await handler(request, contextOf(call))
      : renderProblem({ code: 'malformed-request', detail: 'the request line cannot be used' }),
  )
}

function contextOf({ remoteAddress, clientCertificate }: Call): RequestContext {
  if (clientCertificate === undefined) return { remoteAddress }
  try {
    return { remoteAddress, shownCertificateId: certificateId(clientCertificate) }
  } catch {
    return { remoteAddress } // not one that Node can read
  }
}

function toRequest(call: Call, paths: readonly string[]): Request | undefined {
  const { method, target } = call
  if (!target.startsWith('/')) return undefined
  const hasBody = method !== 'GET' && method !== 'HEAD'
  try {
    const url = new URL(`https://vending.invalid${target}`)
    // Longest first: `/v1/enroll` is not taken for a shorter path that it happens to end in.
    const known = paths
      .toSorted((one, other) => other.length - one.length)
      .find((path) => url.pathname.endsWith(path))
    if (known !== undefined) url.pathname = known
    const headers = new Headers()
    for (const [name, value] of call.headers) headers.append(name, value)
    return new Request(url, { method, headers, ...(hasBody && { body: call.body }) })
  } catch {
    return undefined // a method that Request forbids, such as TRACE, or a target that is no URL
  }
}
