/**
 * A problem document in place of a reply: each has a code of ours, and none brings a secret or an
 * escape sequence into the error.
 */
import type { ErrorCode, Remedy } from '@certvend/client'
import { type ProblemCode, problems, problemType } from '@certvend/client/wire'
import { describe, expect, it } from 'vitest'
import { raw, refusalOf, token } from './attempt.ts'
import type { Respond } from './vending-machine.ts'

describe('a problem document', () => {
  const expected: Record<ProblemCode, readonly [ErrorCode, Remedy]> = {
    'malformed-request': ['ERR_REQUEST_REFUSED', 'operator'],
    'csr-refused': ['ERR_REQUEST_REFUSED', 'operator'],
    'claim-refused': ['ERR_CLAIM_REFUSED', 'operator'],
    'certificate-refused': ['ERR_CREDENTIAL_REFUSED', 'enroll'],
    'device-disabled': ['ERR_CLAIM_REFUSED', 'operator'],
    'certificate-revoked': ['ERR_CLAIM_REFUSED', 'operator'],
    'not-found': ['ERR_REQUEST_REFUSED', 'operator'],
    'method-not-allowed': ['ERR_REQUEST_REFUSED', 'operator'],
    'claim-spent': ['ERR_CLAIM_SPENT', 'operator'],
    'claim-open': ['ERR_REQUEST_REFUSED', 'operator'],
    'key-in-use': ['ERR_KEY_REFUSED', 'retry'],
    'key-revoked': ['ERR_KEY_REFUSED', 'retry'],
    'request-too-large': ['ERR_REQUEST_REFUSED', 'operator'],
    'unsupported-media-type': ['ERR_REQUEST_REFUSED', 'operator'],
    'too-many-attempts': ['ERR_SERVER_BUSY', 'retry'],
    internal: ['ERR_SERVER_BUSY', 'retry'],
    busy: ['ERR_SERVER_BUSY', 'retry'],
  }
  const problem = (status: number, body: object, headers: Record<string, string> = {}): Respond =>
    raw(status, 'application/problem+json', JSON.stringify(body), headers)

  it.each(Object.entries(expected))('%s becomes %s', async (code, [ours, remedy]) => {
    const status = problems[code as ProblemCode]
    const type = problemType(code as ProblemCode)
    const error = await refusalOf(
      problem(status, { type, status, detail: 'the words of the server' }),
    )
    expect(error).toMatchObject({ code: ours, remedy })
    expect(error.message).toContain('the words of the server')
    expect(error.message).toContain(code)
  })

  it('has a meaning for every code of the protocol', () => {
    expect(Object.keys(expected).sort()).toEqual(Object.keys(problems).sort())
  })

  it.each([
    [400, 'ERR_REQUEST_REFUSED'],
    [401, 'ERR_REQUEST_REFUSED'],
    [418, 'ERR_REQUEST_REFUSED'],
    [429, 'ERR_SERVER_BUSY'],
    [500, 'ERR_SERVER_BUSY'],
    [503, 'ERR_SERVER_BUSY'],
  ])('of somebody else (%i) becomes %s', async (status, code) => {
    const type = 'https://problems.example/whatever'
    expect((await refusalOf(problem(status, { type, title: 'No' }))).code).toBe(code)
  })

  it.each(['constructor', '__proto__', 'toString', ''])(
    'with the code %j is nobody of ours',
    async (code) => {
      const error = await refusalOf(problem(400, { type: `urn:certvend:problem:${code}` }))
      expect(error.code).toBe('ERR_REQUEST_REFUSED')
    },
  )

  it.each([
    ['in the detail', { type: problemType('claim-refused'), detail: `Bearer ${token} is wrong` }],
    ['in the title', { type: problemType('claim-refused'), title: token }],
    ['in the type', { type: `https://x.example/?token=${token}` }],
    ['twice', { type: problemType('claim-refused'), detail: `${token}${token}` }],
    [
      'at the edge of what is quoted',
      { type: problemType('busy'), detail: `${'x'.repeat(190)}${token}` },
    ],
  ])('that echoes the token %s does not bring it into the error', async (_where, body) => {
    const error = await refusalOf(problem(401, body))
    for (let length = token.length; length >= 8; length--)
      expect(`${error.message} ${error.stack} ${error.hint}`).not.toContain(token.slice(0, length))
  })

  it('cannot write escape sequences, line breaks or a novel into the error', async () => {
    const detail = `\u001b[2J\u0007\u009b31m\r\nok: enrolled\u2028${'x'.repeat(100_000)}`
    const error = await refusalOf(problem(403, { type: problemType('device-disabled'), detail }))
    // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
    expect(error.message).not.toMatch(/[\u0000-\u001f\u007f-\uffff]/)
    expect(error.message.length).toBeLessThan(400)
  })

  it('cannot do so by its media type either', async () => {
    const type = `text/${'x'.repeat(5000)}\u009b31m${token}`
    const error = await refusalOf(raw(200, type, '<html>'))
    expect(error.message).not.toMatch(/[\u007f-\uffff]/)
    expect(error.message).not.toContain(token)
    expect(error.message.length).toBeLessThan(400)
  })

  it.each([
    ['not JSON', 'application/problem+json', '<html>'],
    ['without a type', 'application/problem+json', '{"detail":"no"}'],
    ['a page of a proxy', 'text/html', '<html>'],
  ])('that is none (%s) is malformed, whatever the status', async (_title, type, body) => {
    for (const status of [400, 401, 403, 404, 409, 500])
      expect((await refusalOf(raw(status, type, body))).code, String(status)).toBe(
        'ERR_REPLY_MALFORMED',
      )
  })
})
