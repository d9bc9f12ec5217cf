/**
 * Claim tokens: made, hashed, judged. A registry never holds a token, only what is made here.
 *
 * A token of 128 random bits or more cannot be found by search, so one SHA-256 is enough. A token
 * that was burned in by someone else may be short; it is stretched with scrypt (RFC 7914) and is
 * called weak wherever it is shown.
 */
import { createHash, randomBytes, scrypt, timingSafeEqual } from 'node:crypto'
import { createQueue, type Queue } from './queue.ts'

/** A token as a registry keeps it. `scrypt` is the mark of a weak token. */
export interface StoredToken {
  /** `plain`: an adopted table holds the token in the clear; it was hashed when it was read. */
  readonly kind: 'sha256' | 'scrypt' | 'plain'
  /** `sha256` and `plain`: 64 hex digits. `scrypt`: `<salt>$<key>`, hex, with N=2^15, r=8, p=1. */
  readonly hash: string
}

/** Stretches `token` with `salt` to 32 bytes. */
export type Stretch = (token: string, salt: Buffer) => Promise<Buffer>

const stretchWithScrypt: Stretch = (token, salt) =>
  new Promise((resolve, reject) => {
    const cost = { N: 2 ** 15, r: 8, p: 1, maxmem: 64 * 1024 * 1024 }
    scrypt(token, salt, 32, cost, (error, key) => (error ? reject(error) : resolve(key)))
  })

const sha256 = (text: string): Buffer => createHash('sha256').update(text).digest()

/** A new token: 192 random bits, 32 characters of base64url. */
export const generateToken = (): string => randomBytes(24).toString('base64url')

/**
 * Whether an imported token has the look of at least 128 random bits: 32 hex digits or more, or 22
 * characters or more with upper case, lower case and digits; and at least 10 different characters.
 * A guess, and on the safe side: what is misjudged only costs a scrypt.
 */
export function looksStrong(token: string): boolean {
  const varied = new Set(token).size >= 10
  const hex = /^(?:[0-9a-f]{32,}|[0-9A-F]{32,})$/.test(token)
  const mixed =
    token.length >= 22 && /[A-Z]/.test(token) && /[a-z]/.test(token) && /[0-9]/.test(token)
  return varied && (hex || mixed)
}

/** What a registry may keep of `token`; a token of {@link generateToken} is strong by birth. */
export async function hashToken(
  token: string,
  origin: 'generated' | 'imported',
  stretch: Stretch = stretchWithScrypt,
): Promise<StoredToken> {
  if (origin === 'generated' || looksStrong(token))
    return { kind: 'sha256', hash: sha256(token).toString('hex') }
  const salt = randomBytes(16)
  const key = await stretch(token, salt)
  return { kind: 'scrypt', hash: `${salt.toString('hex')}$${key.toString('hex')}` }
}

/**
 * Judges a presented token against what is stored, or against nothing for an unknown device or a
 * device without a token, which never match.
 *
 * Whoever is refused has cost the same work, whatever the reason: one SHA-256 and, where the
 * registry holds any weak token (`weakTokensExist`), one scrypt. Comparisons take constant time.
 *
 * Undefined when too many wait for a scrypt already: neither accepted nor refused.
 */
export type TokenJudge = (
  presented: string,
  stored: StoredToken | undefined,
  weakTokensExist: () => Promise<boolean>,
) => Promise<boolean | undefined>

/** A token that stands in the clear in a table which was there before this program. */
export const plainToken = (token: string): StoredToken => ({
  kind: 'plain',
  hash: sha256(token).toString('hex'),
})

/** @param stretch how a weak token is hashed; default: scrypt */
export function createTokenJudge(
  stretch: Stretch = stretchWithScrypt,
  queue: Queue = createQueue(),
): TokenJudge {
  const nothing = Buffer.alloc(32)
  return async (presented, stored, weakTokensExist) => {
    const isFast = stored?.kind === 'sha256' || stored?.kind === 'plain'
    const expected = isFast ? Buffer.from(stored.hash, 'hex') : nothing
    const fastMatch = timingSafeEqual(sha256(presented), expected)
    if (isFast && fastMatch) return true
    if (!(await weakTokensExist())) return false
    const isSlow = stored?.kind === 'scrypt'
    const [salt = '', key = ''] = isSlow ? stored.hash.split('$') : []
    const stretched = queue(() =>
      stretch(presented, isSlow ? Buffer.from(salt, 'hex') : nothing.subarray(0, 16)),
    )
    if (!stretched) return undefined
    const slowMatch = timingSafeEqual(await stretched, isSlow ? Buffer.from(key, 'hex') : nothing)
    return isSlow && slowMatch
  }
}
