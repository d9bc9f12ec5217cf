/**
 * What may happen to a device and its vending server in one life, as values: fast-check draws them,
 * and takes them away again one by one to find the shortest life that goes wrong.
 */
import fc from 'fast-check'

/** How a server asks for patience; `date` is the HTTP-date of that moment. */
export interface Patience {
  readonly seconds: number
  readonly as: 'seconds' | 'date'
}

/** What the vending server does with one request. */
export type Act =
  | { readonly do: 'answer'; readonly dress: 'plain' | 'reordered' | 'embroidered' }
  /** The connection breaks before the request was read, after the certificate was made, or within the reply. */
  | { readonly do: 'lose'; readonly what: 'request' | 'reply' | 'half the reply' }
  | { readonly do: 'stall'; readonly issued: boolean }
  | {
      readonly do: 'busy'
      readonly status: 429 | 502 | 503 | 504
      readonly issued: boolean
      readonly patience?: Patience
    }
  | { readonly do: 'defer'; readonly patience?: Patience }
  | {
      readonly do: 'garble'
      readonly as: 'portal' | 'redirect' | 'cut short' | 'empty' | 'internal'
      readonly issued: boolean
    }
  /** An answer that must not be believed. */
  | {
      readonly do: 'cheat'
      readonly by: 'another key' | 'another serial' | 'another id' | 'an anchor that is no CA'
    }
  | { readonly do: 'refuse key' }

/** When a device dies: at the n-th of these moments. */
export interface Kill {
  readonly at: 'operation' | 'unsent' | 'unanswered' | 'waiting' | 'door' | 'admitted'
  readonly number: number
}

/** From power on to the end of the matter, or to the kill. */
export interface Boot {
  readonly do: 'boot'
  /** One for each request; then the server answers honestly. */
  readonly acts: readonly Act[]
  readonly kill?: Kill
  /** Asks for a successor although it has a credential, as a renewal does. */
  readonly again: boolean
  /** Whether the clock stands at 1970, as without a battery. */
  readonly clockless: boolean
}

export type Happening =
  | Boot
  | { readonly do: 'rearm' }
  | { readonly do: 'disable' }
  | { readonly do: 'enable' }
  | { readonly do: 'revoke'; readonly which: 'first' | 'latest' }
  | { readonly do: 'pass'; readonly minutes: number }

export interface Life {
  /** Whether the server holds a claim to the first key, as ours does, or answers any key, as some do. */
  readonly oneKey: boolean
  readonly happenings: readonly Happening[]
}

const patience = fc.record<Patience>({
  seconds: fc.constantFrom(0, 30, 300, 3599, 3600, 7200, 90_000),
  as: fc.constantFrom('seconds', 'date'),
})
const maybe = <Key extends string, T>(key: Key, value: fc.Arbitrary<T>) =>
  fc.option(value, { nil: undefined }).map((one) => (one === undefined ? {} : { [key]: one }))

const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record<Act & { do: 'answer' }>({
      do: fc.constant('answer'),
      dress: fc.constantFrom('plain', 'reordered', 'embroidered'),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record<Act & { do: 'lose' }>({
      do: fc.constant('lose'),
      what: fc.constantFrom('request', 'reply', 'half the reply'),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record<Act & { do: 'stall' }>({ do: fc.constant('stall'), issued: fc.boolean() }),
  },
  {
    weight: 3,
    arbitrary: fc
      .tuple(fc.constantFrom(429, 502, 503, 504), fc.boolean(), maybe('patience', patience))
      .map(([status, issued, rest]) => ({ do: 'busy', status, issued, ...rest }) as Act),
  },
  {
    weight: 2,
    arbitrary: maybe('patience', patience).map((rest) => ({ do: 'defer', ...rest }) as Act),
  },
  {
    weight: 2,
    arbitrary: fc.record<Act & { do: 'garble' }>({
      do: fc.constant('garble'),
      as: fc.constantFrom('portal', 'redirect', 'cut short', 'empty', 'internal'),
      issued: fc.boolean(),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record<Act & { do: 'cheat' }>({
      do: fc.constant('cheat'),
      by: fc.constantFrom('another key', 'another serial', 'another id', 'an anchor that is no CA'),
    }),
  },
  { weight: 1, arbitrary: fc.constant<Act>({ do: 'refuse key' }) },
)

const kill: fc.Arbitrary<Kill> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record<Kill>({
      at: fc.constant('operation'),
      number: fc.integer({ min: 1, max: 60 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record<Kill>({
      at: fc.constantFrom('unsent', 'unanswered', 'waiting', 'door', 'admitted'),
      number: fc.integer({ min: 1, max: 3 }),
    }),
  },
)

const boot: fc.Arbitrary<Boot> = fc
  .tuple(
    fc.array(act, { maxLength: 4 }),
    maybe('kill', kill),
    fc.integer({ min: 0, max: 9 }),
    fc.integer({ min: 0, max: 19 }),
  )
  .map(([acts, rest, again, clockless]) => ({
    do: 'boot' as const,
    acts,
    ...rest,
    again: again >= 7,
    clockless: clockless === 19,
  }))

const happening: fc.Arbitrary<Happening> = fc.oneof(
  { weight: 8, arbitrary: boot },
  { weight: 1, arbitrary: fc.constant<Happening>({ do: 'rearm' }) },
  { weight: 1, arbitrary: fc.constantFrom<Happening>({ do: 'disable' }, { do: 'enable' }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom<Happening>(
      { do: 'revoke', which: 'first' },
      { do: 'revoke', which: 'latest' },
    ),
  },
  {
    weight: 1,
    arbitrary: fc
      .integer({ min: 1, max: 2000 })
      .map((minutes): Happening => ({ do: 'pass', minutes })),
  },
)

export const life: fc.Arbitrary<Life> = fc.record({
  oneKey: fc.boolean(),
  happenings: fc.array(happening, { minLength: 1, maxLength: 8 }),
})

const asked = (patience?: Patience): string =>
  patience ? `, Retry-After ${patience.seconds} s by ${patience.as}` : ''
const though = (issued: boolean): string => (issued ? ', having made the certificate' : '')

function told(act: Act): string {
  switch (act.do) {
    case 'answer':
      return act.dress === 'plain' ? 'answers' : `answers, ${act.dress}`
    case 'lose':
      return `loses ${act.what.startsWith('half') ? '' : 'the '}${act.what}`
    case 'stall':
      return `stalls${though(act.issued)}`
    case 'busy':
      return `says ${act.status}${asked(act.patience)}${though(act.issued)}`
    case 'defer':
      return `defers${asked(act.patience)}`
    case 'garble':
      return `garbles (${act.as})${though(act.issued)}`
    case 'cheat':
      return `cheats by ${act.by}`
    case 'refuse key':
      return 'refuses the key'
  }
}

/** A life as lines for people. */
export function story({ oneKey, happenings }: Life): string[] {
  const lines = [`the server answers ${oneKey ? 'one key' : 'any key'}`]
  for (const one of happenings) {
    if (one.do === 'pass') lines.push(`${one.minutes} minutes pass`)
    else if (one.do === 'revoke') lines.push(`the operator revokes the ${one.which} certificate`)
    else if (one.do !== 'boot') lines.push(`the operator does: ${one.do}`)
    else {
      const dies = one.kill ? `, dies at ${one.kill.at} ${one.kill.number}` : ''
      lines.push(
        `the device boots${one.clockless ? ' in 1970' : ''}${one.again ? ' to renew' : ''}${dies}; the server ${[...one.acts.map(told), 'answers'].join(', then ')}`,
      )
    }
  }
  return lines
}
