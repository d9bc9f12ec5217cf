/**
 * One question and its answer on a Fleet Provisioning topic, with bounded patience.
 *
 * Throttled by IoT Core, a request, and even a subscription, meets silence or a closed connection
 * instead of a rejection; both end the whole sequence, to be begun again later.
 */
import type { Clock } from './clock.ts'
import { CertvendError, isCertvendError } from './errors.ts'
import type { Message, Session } from './session.ts'

export interface Answer {
  readonly accepted: boolean
  readonly payload: Uint8Array
}

/** The two topics on which one operation is answered, subscribed. */
export interface Question {
  /**
   * Sends `request` and waits for the answer.
   *
   * @throws {CertvendError} `ERR_REPLY_LOST` after silence or when the session ended
   */
  ask(request: Readonly<Record<string, unknown>>): Promise<Answer>
}

export interface Circumstance {
  readonly clock: Clock
  /** How long each step may take, in milliseconds. */
  readonly answerMs: number
  readonly signal?: AbortSignal | undefined
}

const policyHint = (topic: string): string =>
  `IoT Core refuses, or closes the connection over, a topic that the claim's policy does not allow: it must allow iot:Subscribe, iot:Receive and iot:Publish on ${topic} (create/* does not cover create-from-csr/*); else wait, the account may be throttled`

/**
 * Subscribes to the answers of the operation at `topic`, before anything is asked.
 *
 * @throws {CertvendError} `ERR_TIMEOUT`, `ERR_SESSION_LOST`, `ERR_REQUEST_REFUSED`
 */
export async function openQuestion(
  session: Session,
  topic: string,
  circumstance: Circumstance,
): Promise<Question> {
  const subscribe = (suffix: string): Promise<AsyncIterable<Message>> =>
    session.subscribe(`${topic}/${suffix}`)
  const subscribed = Promise.all([subscribe('accepted'), subscribe('rejected')])
  const [accepted, rejected] = await bounded(session, subscribed, circumstance, {
    code: 'ERR_TIMEOUT',
    message: `no answer to the subscription to ${topic}`,
    hint: policyHint(topic),
  })
  const first = async (answers: AsyncIterable<Message>, isAccepted: boolean): Promise<Answer> => {
    for await (const { payload } of answers) return { accepted: isAccepted, payload }
    return new Promise(() => {}) // the session ended, which is told elsewhere
  }
  return {
    ask(request) {
      const unsent = new Promise<never>((_, reject) => {
        session.publish(topic, JSON.stringify(request)).catch(reject)
      })
      const answer = Promise.race([first(accepted, true), first(rejected, false), unsent])
      return bounded(session, answer, circumstance, {
        code: 'ERR_REPLY_LOST',
        message: `no answer on ${topic}`,
        hint: policyHint(topic),
      })
    },
  }
}

/** Waits for `work`, but not longer than agreed and not past the session's end. */
async function bounded<T>(
  session: Session,
  work: Promise<T>,
  { clock, answerMs, signal }: Circumstance,
  failure: { code: 'ERR_TIMEOUT' | 'ERR_REPLY_LOST'; message: string; hint: string },
): Promise<T> {
  const { code, message, hint } = failure
  const done = new AbortController()
  const silence = clock.wait(answerMs, done.signal).then(() => {
    throw new CertvendError(code, `${message} within ${answerMs / 1000} s`, { hint })
  })
  const over = session.ended.then((end) => {
    signal?.throwIfAborted()
    const cause = end.reason === 'lost' ? { cause: end.error } : {}
    throw new CertvendError(
      code === 'ERR_TIMEOUT' ? 'ERR_SESSION_LOST' : code,
      `${message}: the session ended`,
      {
        hint,
        ...cause,
      },
    )
  })
  for (const one of [work, silence, over]) one.catch(() => {}) // whichever loses the race
  try {
    return await Promise.race([work, silence, over])
  } catch (error) {
    signal?.throwIfAborted()
    if (isCertvendError(error, 'ERR_REQUEST_REFUSED'))
      throw new CertvendError('ERR_REQUEST_REFUSED', error.message, { cause: error, hint })
    if (isCertvendError(error, 'ERR_SESSION_LOST') && code === 'ERR_REPLY_LOST')
      throw new CertvendError(code, `${message}: the session ended`, { cause: error, hint })
    throw error
  } finally {
    done.abort()
  }
}
