import { describe, expect, it } from 'vitest'
import { CertvendError, type ErrorCode } from '../src/errors.ts'
import { explain } from '../src/in-between.ts'

const failure = (code: ErrorCode, cause?: string): CertvendError =>
  new CertvendError(code, 'it failed', cause ? { cause: { code: cause } } : {})
const at = (port: number) => ({ host: 'mqtt.example', port })

describe('a port that many networks do not let out', () => {
  it.each([
    ['ERR_NETWORK', 'ECONNREFUSED'],
    ['ERR_NETWORK', 'EHOSTUNREACH'],
    ['ERR_TIMEOUT', undefined],
  ] as const)('%s (%s) at 8883 points to 443', (code, cause) => {
    const explained = explain(failure(code, cause), at(8883))
    expect(explained).toMatchObject({ code, remedy: 'retry', message: 'it failed' })
    expect(explained.hint).toMatch(/443.*x-amzn-mqtt-ca.*HTTPS_PROXY/)
  })

  it.each([
    ['ERR_NETWORK', 'ENOTFOUND', 8883],
    ['ERR_NETWORK', 'EAI_AGAIN', 8883],
    ['ERR_NETWORK', 'ECONNREFUSED', 443],
    ['ERR_TIMEOUT', undefined, 443],
    ['ERR_PROXY', undefined, 8883],
    ['ERR_CLOCK', 'CERT_NOT_YET_VALID', 8883],
  ] as const)('%s (%s) at %i is left as it is', (code, cause, port) => {
    const plain = failure(code, cause)
    expect(explain(plain, at(port))).toBe(plain)
  })
})

it('a certificate that nobody can read is not described', () => {
  const plain = failure('ERR_SERVER_UNTRUSTED', 'UNABLE_TO_GET_ISSUER_CERT_LOCALLY')
  expect(explain(plain, at(443))).toBe(plain)
})
