/**
 * One error class and one closed table: code → remedy and hint.
 *
 * A remedy is the caller's next move, a hint is a person's. Misuse by the caller is not here: it is
 * `TypeError` or `RangeError`. Each code has an anchor of the same name in `docs/errors.md`.
 */

/**
 * What the caller does next.
 *
 * - `retry`: the same request, later (at `retryAt` if the server said when).
 * - `enroll`: this credential is finished; start again from the claim, never removing it first.
 * - `operator`: no request of ours will help; a person must act.
 */
export type Remedy = 'retry' | 'enroll' | 'operator'

const table = {
  ERR_NETWORK: {
    remedy: 'retry',
    hint: 'check DNS, the route and the firewall between this device and the host named above',
  },
  ERR_PROXY: {
    remedy: 'retry',
    hint: 'look at the proxy named above, and at who named it: the proxy option, else HTTPS_PROXY; NO_PROXY exempts hosts',
  },
  ERR_TIMEOUT: {
    remedy: 'retry',
    hint: 'no answer came in time; look at the host and at proxies and firewalls in between',
  },
  ERR_REPLY_LOST: {
    remedy: 'retry',
    hint: 'the connection broke after the request was sent; the same request with the same key is safe to repeat',
  },
  ERR_SERVER_BUSY: {
    remedy: 'retry',
    hint: 'the vending server asked for patience; nothing is wrong with this device',
  },
  ERR_DEFERRED: {
    remedy: 'retry',
    hint: 'the request was accepted but not decided; an operator of the vending server may have to approve it',
  },
  ERR_CLOCK: {
    remedy: 'retry',
    hint: "set this device's clock (timedatectl, chronyc); certificates cannot be judged without the right time",
  },
  ERR_SERVER_UNTRUSTED: {
    remedy: 'operator',
    hint: 'no pin vouches for this server: compare the pinned CA with the one that issued the server certificate, and look for an intercepting proxy',
  },
  ERR_REPLY_MALFORMED: {
    remedy: 'retry',
    hint: 'something other than the expected vending server answered; check the URL, proxies and captive portals',
  },
  ERR_CERTIFICATE_MISMATCH: {
    remedy: 'operator',
    hint: 'the certificate does not fit this device; nothing was stored, ask the operator of the vending server',
  },
  ERR_CLAIM_REFUSED: {
    remedy: 'operator',
    hint: 'check the device serial and the token against the vending server: certvend-server device show SERIAL',
  },
  ERR_CLAIM_SPENT: {
    remedy: 'operator',
    hint: 'this claim was already used with another key; if that was this device, re-arm it: certvend-server device rearm SERIAL',
  },
  ERR_KEY_REFUSED: {
    remedy: 'retry',
    hint: "this key is another device's or its certificate was revoked; it was dropped, and the next attempt makes a new one",
  },
  ERR_REQUEST_REFUSED: {
    remedy: 'operator',
    hint: 'the vending server does not accept this kind of request; see its reason above',
  },
  ERR_CREDENTIAL_REFUSED: {
    remedy: 'enroll',
    hint: 'the MQTT server does not accept this certificate; it may be revoked, expired or issued by another CA',
  },
  ERR_CREDENTIAL_EXPIRED: {
    remedy: 'enroll',
    hint: "compare this device's clock with the certificate's dates; if it is right, have the device re-armed, then: certvend enroll --again with the new token",
  },
  ERR_SESSION_REFUSED: {
    remedy: 'retry',
    hint: 'the MQTT server closed the door: the certificate may be pending, inactive or without a policy, or the client id is not the thing name',
  },
  ERR_SESSION_LOST: {
    remedy: 'retry',
    hint: 'the MQTT connection ended; stayConnected opens the next one by itself',
  },
  ERR_SESSION_TAKEN_OVER: {
    remedy: 'retry',
    hint: 'probably another device or program connects with the same thing name; look for a cloned disk image, and enroll each device by itself',
  },
  ERR_KEY_UNAVAILABLE: {
    remedy: 'operator',
    hint: 'the private key is in a PKCS#11 token that cannot be used as it was described; see the reason above',
  },
  ERR_STORE_UNWRITABLE: {
    remedy: 'operator',
    hint: 'make the state directory writable for this user, and check free space and mount options',
  },
  ERR_STORE_UNREADABLE: {
    remedy: 'operator',
    hint: 'run as the user that owns the state directory, or mend its permissions or its disk',
  },
  ERR_STORE_UNSAFE: {
    remedy: 'operator',
    hint: 'the state directory or a parent could be changed by other users; the command above mends it',
  },
  ERR_STORE_CORRUPT: {
    remedy: 'operator',
    hint: 'the stored credential is damaged and no complete copy is left; remove it (certvend forget) and enroll again with a re-armed claim',
  },
  ERR_STORE_LOCKED: {
    remedy: 'operator',
    hint: 'another process uses this state directory; stop it, or use another directory',
  },
} as const satisfies Record<string, { remedy: Remedy; hint: string }>

/** Every code that a {@link CertvendError} can carry. */
export type ErrorCode = keyof typeof table

/** All codes, in the order of the table. */
export const errorCodes: readonly ErrorCode[] = Object.keys(table) as ErrorCode[]

/** Where a code is explained, relative to this project's root. */
export const errorDocs = (code: string): string => `docs/errors.md#${code.toLowerCase()}`

/** The only error class of Certvend's device side. */
export class CertvendError extends Error {
  override readonly name = 'CertvendError'
  /** One of a closed set; stable across releases. */
  readonly code: ErrorCode
  /** What the caller does next. */
  readonly remedy: Remedy
  /** What a person does next; one sentence, lower case, no secrets. */
  readonly hint: string
  /** When the server allows the next attempt, if it said so. */
  declare readonly retryAt?: Date
  /** Where the code is explained: `docs/errors.md#err_network`. */
  get docs(): string {
    return errorDocs(this.code)
  }

  constructor(
    code: ErrorCode,
    message: string,
    options: { cause?: unknown; retryAt?: Date; hint?: string; remedy?: Remedy } = {},
  ) {
    super(message, 'cause' in options ? { cause: options.cause } : undefined)
    this.code = code
    this.remedy = options.remedy ?? table[code].remedy
    this.hint = options.hint ?? table[code].hint
    if (options.retryAt) this.retryAt = options.retryAt
  }
}

/** Whether `error` is ours, and, if a code is given, carries it. */
export function isCertvendError(error: unknown, code?: ErrorCode): error is CertvendError {
  return error instanceof CertvendError && (code === undefined || error.code === code)
}
