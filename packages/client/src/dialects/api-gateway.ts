/**
 * What Amazon API Gateway says by itself, before a vending machine behind it has said anything.
 *
 * @see https://docs.aws.amazon.com/apigateway/latest/developerguide/supported-gateway-response-types.html
 */
import type { SendResponse } from '../send.ts'
import type { Refusal } from './dialect.ts'
import { find, jsonOf, member } from './reply.ts'

const path = 'check the vending URL: host, stage (in its exact case) and path'

export const gatewayRefusals: readonly Refusal[] = [
  {
    said: 'Missing Authentication Token',
    status: 403,
    means: 'API Gateway has no such path or method',
    code: 'ERR_REQUEST_REFUSED',
    hint: path,
    leaves: 'nothing',
  },
  {
    said: 'Forbidden',
    status: 403,
    means: 'API Gateway has no such stage, or a firewall in front of it refuses',
    code: 'ERR_REQUEST_REFUSED',
    hint: path,
    leaves: 'nothing',
  },
  {
    said: 'Too Many Requests',
    status: 429,
    means: 'API Gateway is throttling',
    code: 'ERR_SERVER_BUSY',
    leaves: 'nothing',
  },
  {
    said: 'Limit Exceeded',
    status: 429,
    means: 'a quota of API Gateway is used up',
    code: 'ERR_SERVER_BUSY',
    leaves: 'nothing',
  },
  {
    said: 'Internal server error',
    status: 502,
    means: 'the function behind API Gateway died, perhaps after it had issued',
    code: 'ERR_SERVER_BUSY',
    leaves: 'something',
  },
  {
    said: 'Internal server error',
    status: 500,
    means: 'API Gateway could not make sense of the function, perhaps after it had issued',
    code: 'ERR_SERVER_BUSY',
    leaves: 'something',
  },
  {
    said: 'Service Unavailable',
    status: 503,
    means: 'API Gateway is not to be had',
    code: 'ERR_SERVER_BUSY',
    leaves: 'something',
  },
  {
    said: 'Endpoint request timed out',
    status: 504,
    means: 'the function took too long, and may have issued all the same',
    code: 'ERR_SERVER_BUSY',
    leaves: 'something',
  },
]

/** A Lambda function's uncaught error, handed on as if it were a reply. */
export const lambdaError: Refusal = {
  said: '{"errorMessage":…}',
  means: 'the function failed or ran out of time, perhaps after it had issued',
  code: 'ERR_SERVER_BUSY',
  leaves: 'something',
}

export function gatewayRefusal(response: SendResponse): Refusal | undefined {
  const message = member(jsonOf(response), 'message')
  return typeof message === 'string' ? find(gatewayRefusals, message, response.status) : undefined
}

export const isLambdaError = (json: unknown): boolean =>
  typeof member(json, 'errorMessage') === 'string'
