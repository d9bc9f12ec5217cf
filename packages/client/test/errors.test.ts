import { describe, expect, it } from 'vitest'
import { CertvendError, errorCodes, isCertvendError } from '../src/errors.ts'

describe('the error table', () => {
  it.each(errorCodes)('%s has a remedy and a hint for people', (code) => {
    const error = new CertvendError(code, 'what happened')
    expect(error.code).toBe(code)
    expect(['retry', 'enroll', 'operator']).toContain(error.remedy)
    expect(error.hint).toMatch(/^[a-z].{20,}[^.]$/)
    expect(error.hint).not.toMatch(/\n/)
  })

  it('has each code once, in one form', () => {
    expect(new Set(errorCodes).size).toBe(errorCodes.length)
    for (const code of errorCodes) expect(code).toMatch(/^ERR_[A-Z]+(_[A-Z]+)*$/)
  })

  it('has one class, whose instances say what they are', () => {
    const cause = new Error('why')
    const error = new CertvendError('ERR_NETWORK', 'what happened', { cause })
    expect(error).toBeInstanceOf(Error)
    expect(error.name).toBe('CertvendError')
    expect(String(error)).toBe('CertvendError: what happened')
    expect(error.cause).toBe(cause)
    expect('retryAt' in error).toBe(false)
    expect('cause' in new CertvendError('ERR_NETWORK', 'x')).toBe(false)
  })

  it('knows its own from everybody else’s', () => {
    const ours = new CertvendError('ERR_NETWORK', 'x')
    expect(isCertvendError(ours)).toBe(true)
    expect(isCertvendError(ours, 'ERR_NETWORK')).toBe(true)
    expect(isCertvendError(ours, 'ERR_CLOCK')).toBe(false)
    for (const other of [new Error('x'), { code: 'ERR_NETWORK' }, null, undefined, 'ERR_NETWORK'])
      expect(isCertvendError(other)).toBe(false)
  })
})
