import { isToken } from '@certvend/client/wire'
import { describe, expect, it } from 'vitest'
import { createTokenJudge, generateToken, hashToken, looksStrong } from '../src/tokens.ts'

const judge = createTokenJudge()
const yes = async () => true
const no = async () => false

describe('a generated token', () => {
  it('holds 192 bits, is one the protocol can carry, and never comes twice', () => {
    const tokens = Array.from({ length: 1000 }, generateToken)
    expect(new Set(tokens).size).toBe(1000)
    for (const token of tokens) {
      expect(token).toMatch(/^[A-Za-z0-9_-]{32}$/)
      expect(isToken(token)).toBe(true)
    }
  })

  it('is kept as a hash from which it cannot be read', async () => {
    const token = generateToken()
    const stored = await hashToken(token, 'generated')
    expect(stored.kind).toBe('sha256')
    expect(stored.hash).toMatch(/^[0-9a-f]{64}$/)
    expect(await judge(token, stored, no)).toBe(true)
    expect(await judge(`${token}x`, stored, no)).toBe(false)
    expect(await judge('', stored, yes)).toBe(false)
  })
})

describe('an imported token', () => {
  it('is strong only if it has the look of 128 random bits', () => {
    for (const strong of [
      '9f86d081884c7d659a2feaa0c55ad015',
      '9F86D081884C7D659A2FEAA0C55AD015A3BF4F1B',
      'q83vEjRWeJCrze8SNFZ4kA',
      'q83vEjRWeJCrze8SNFZ4kA==',
    ])
      expect(looksStrong(strong), strong).toBe(true)
    for (const weak of [
      '12345678',
      '0000000000000000000000000000000000000000',
      'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaA1',
      'correct-horse-battery-staple-and-more',
      '9f86d081884c7d659a2feaa0c55ad01',
      '1234567890123456789012345678901',
      'f47ac10b-58cc-4372-a567-0e02b2c3d479',
    ])
      expect(looksStrong(weak), weak).toBe(false)
  })

  it('that is weak is salted and stretched: the same token is never kept alike', async () => {
    const [one, other] = [
      await hashToken('12345678', 'imported'),
      await hashToken('12345678', 'imported'),
    ]
    expect([one.kind, other.kind]).toEqual(['scrypt', 'scrypt'])
    expect(one.hash).not.toBe(other.hash)
    expect(await judge('12345678', one, yes)).toBe(true)
    expect(await judge('12345679', one, yes)).toBe(false)
  })
})

describe('no token at all', () => {
  it('matches nothing, and nothing matches it', async () => {
    for (const presented of ['', '0', 'x'.repeat(32)])
      for (const weakTokensExist of [yes, no])
        expect(await judge(presented, undefined, weakTokensExist)).toBe(false)
  })
})
