/** What only one file on the device side may do: TLS options, files, time, the environment. */
import { each, except, importsOf, inPackage, onDevice, type Rule } from './rule.ts'
import type { Found, Source } from './source.ts'

const client = (name: string): string => `packages/client/src/${name}`

const tlsKeys =
  /^(ca|rejectUnauthorized|allowPartialTrustChain|minVersion|maxVersion|ciphers|secureContext|checkServerIdentity|maxCachedSessions|secureProtocol|secureOptions|pfx)$/

/** What `node:net` offers without opening anything. */
const harmless = /^(isIP|isIPv4|isIPv6|BlockList|SocketAddress)$/

/** `ca: 'pins'` in a table of words configures nothing. */
const oneWord = /^'\w+'$/

const writers =
  /^(appendFile|chmod|chown|copyFile|cp|createWriteStream|fchmod|fchown|fdatasync|fsync|ftruncate|futimes|lchown|link|lutimes|mkdir|mkdtemp|rename|rm|rmdir|symlink|truncate|unlink|utimes|write|writeFile|writev)(Sync)?$/

const timers = /^(set(Timeout|Interval))$/
const clocks =
  /^((globalThis\.)?Date\.now|performance\.(now|timeOrigin)|process\.(hrtime|uptime)(\.bigint)?)$/

/** The names under which a file knows `node:fs` or `node:fs/promises` as a whole. */
const fileSystems = ({ imports }: Source): string[] =>
  imports
    .filter(({ specifier }) => isFileSystem(specifier))
    .flatMap(({ names, locals }) =>
      locals.filter((_, at) => /^(\*|default|promises)$/.test(names[at] ?? '')),
    )

const isFileSystem = (specifier: string): boolean => /^(node:)?fs(\/promises)?$/.test(specifier)

function fileWrites(source: Source): Found[] {
  const roots = fileSystems(source)
  const ofFileSystem = ({ text }: Found): string | undefined =>
    roots.includes(text.split('.')[0] ?? '') ? text.split('.').at(-1) : undefined
  const opened = source.imports.some(
    ({ specifier, names }) =>
      isFileSystem(specifier) && names.some((name) => /^open(Sync)?$/.test(name)),
  )
  return [
    ...importsOf(
      source,
      (specifier, { names }) => isFileSystem(specifier) && names.some((name) => writers.test(name)),
    ),
    ...source.members.filter((member) => writers.test(ofFileSystem(member) ?? '')),
    ...source.calls.filter(
      (call) =>
        (/^open(Sync)?$/.test(ofFileSystem(call) ?? '') ||
          (opened && /^open(Sync)?$/.test(call.text))) &&
        !isForReading(call.arguments[1]),
    ),
  ]
}

const isForReading = (flags: string | undefined): boolean =>
  flags === undefined ||
  /^['"]r['"]$/.test(flags) ||
  (flags.includes('O_RDONLY') && !/O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)/.test(flags))

const readsClock = (source: Source): Found[] => [
  ...source.members.filter(({ text }) => clocks.test(text)),
  ...source.constructions.filter((made) => made.text === 'Date' && made.arguments.length === 0),
  ...source.calls.filter(({ text }) => text === 'Date'),
  ...importsOf(source, (specifier) => specifier === 'node:perf_hooks'),
]

const verification: Rule['breaches'] = each(onDevice, (source) => [
  ...source.properties.filter(
    ({ text, value }) => text === 'rejectUnauthorized' && value !== 'true',
  ),
  ...source.assigned.filter(({ text }) =>
    /NODE_TLS_REJECT_UNAUTHORIZED|\.rejectUnauthorized$/.test(text),
  ),
])

const judges = [
  'wire',
  'csr',
  'certificate',
  'verdict',
  'claim',
  'credential',
  'errors',
  'send',
  'endpoint',
  'fleet-claim',
  'fleet-messages',
]
const inputOutput =
  /^node:(fs|net|tls|http|https|http2|dgram|dns|child_process|worker_threads|timers|readline)(\/.*)?$|\/(store|durable|https|mqtt|session|clock|enroll)\.ts$/

export const device: readonly Rule[] = [
  {
    name: 'only trust.ts makes TLS options',
    because:
      'one careless `ca` or `checkServerIdentity` elsewhere, and a server nobody vouches for is believed',
    breaches: each(except(onDevice, client('trust.ts')), (source) => [
      ...source.properties.filter(
        ({ text, value }) => tlsKeys.test(text.replace(/^['"]|['"]$/g, '')) && !oneWord.test(value),
      ),
      ...source.calls.filter(({ text }) =>
        /(^|\.)(createSecureContext|setDefaultCACertificates)$/.test(text),
      ),
    ]),
    broken: [
      { [client('https.ts')]: 'const options = { ca: pins.pem }' },
      { [client('mqtt.ts')]: `connect({ ...options, 'checkServerIdentity': () => undefined })` },
      { 'packages/agent/src/doctor.ts': 'const options = { rejectUnauthorized: true }' },
      { [client('session.ts')]: 'tls.createSecureContext({})' },
    ],
    kept: {
      [client('certificate.ts')]: 'export const isCa = (one: { ca: boolean }) => one.ca',
      'packages/agent/src/config.ts': `const synonyms = { ca: 'pins' }`,
    },
  },
  {
    name: 'only dial.ts opens connections',
    because:
      "whatever leaves this device goes through one place, which takes its TLS options from trust.ts; the agent's Unix sockets (socket.ts) leave nothing",
    breaches: each(except(onDevice, client('dial.ts'), 'packages/agent/src/socket.ts'), (source) =>
      importsOf(
        source,
        (specifier, { form, names }) =>
          form !== 'type' &&
          (/^(node:)?(https?|http2|dgram)$/.test(specifier) ||
            (/^(node:)?tls$/.test(specifier) && source.path !== client('trust.ts')) ||
            (/^(node:)?net$/.test(specifier) && !names.every((name) => harmless.test(name)))),
      ),
    ),
    broken: [
      { 'packages/agent/src/agent.ts': `import { connect } from 'node:tls'` },
      { 'packages/agent/src/doctor.ts': `import https from 'node:https'` },
      { [client('enroll.ts')]: `import net, { isIP } from 'node:net'` },
      { [client('session.ts')]: `const { connect } = await import('node:net')` },
    ],
    kept: {
      [client('mqtt.ts')]: `import type { TLSSocket } from 'node:tls'`,
      [client('trust.ts')]:
        `import { isIP } from 'node:net'\nimport { createSecureContext } from 'node:tls'`,
    },
  },
  {
    name: 'verification is never turned off',
    because:
      'no option and no environment variable may: a test passes an anchor, it does not pass false',
    breaches: verification,
    broken: [
      { [client('trust.ts')]: 'const options = { rejectUnauthorized: false }' },
      { [client('trust.ts')]: 'const options = { rejectUnauthorized: !insecure }' },
      { 'packages/agent/src/cli.ts': `process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'` },
    ],
    kept: {
      [client('trust.ts')]: 'const options = { rejectUnauthorized: true }',
      'packages/agent/src/cli.ts': 'delete process.env.NODE_TLS_REJECT_UNAUTHORIZED',
    },
  },
  {
    name: 'nothing uses fetch',
    because: 'fetch follows redirects and inflates bodies: 194 kB of gzip became 200 MB',
    breaches: each(onDevice, ({ calls }) =>
      calls.filter(({ text }) => /^(globalThis\.)?fetch$/.test(text)),
    ),
    broken: [{ [client('enroll.ts')]: 'await fetch(url)' }],
    kept: { [client('enroll.ts')]: 'await inbox.fetch(url)' },
  },
  {
    name: 'only store.ts and durable.ts write files',
    because:
      'a file that is written without fsync and rename is a torn file after a power cut; every writer goes through durable.ts',
    breaches: each(except(onDevice, client('store.ts'), client('durable.ts')), fileWrites),
    broken: [
      { [client('enroll.ts')]: `import fs from 'node:fs'\nfs.writeFileSync('a', 'b')` },
      { [client('survey.ts')]: `import { rmSync } from 'node:fs'` },
      { 'packages/agent/src/status.ts': `import { writeFile } from 'node:fs/promises'` },
      {
        'packages/agent/src/log.ts': `import { promises as disk } from 'node:fs'\ndisk.rename(a, b)`,
      },
      {
        [client('generation.ts')]: `import * as fs from 'node:fs'\nfs.openSync(path, 'wx', 0o600)`,
      },
      { [client('generation.ts')]: `import { open } from 'node:fs/promises'\nopen(path, O_CREAT)` },
    ],
    kept: {
      [client('generation.ts')]:
        `import fs from 'node:fs'\nfs.openSync(path, fs.constants.O_RDONLY)\nsocket.write('x')`,
    },
  },
  {
    name: 'only clock.ts reads the system clock',
    because:
      'the clock is an argument everywhere else: whoever reads it himself cannot be tested in 2038',
    breaches: each((path) => inPackage()(path) && !path.endsWith('/src/clock.ts'), readsClock),
    broken: [
      { [client('enroll.ts')]: 'const now = new Date()' },
      { [client('retry.ts')]: 'const now = Date.now()' },
      { 'packages/agent/src/agent.ts': 'const began = performance.now()' },
      { 'packages/server/src/failures.ts': 'const at = process.hrtime.bigint()' },
      { 'packages/agent/src/status.ts': `import { performance } from 'node:perf_hooks'` },
    ],
    kept: { [client('retry.ts')]: 'new Date(clock.now().getTime() + 1000)' },
  },
  {
    name: 'only clock.ts makes timers',
    because:
      'its waits are bounded steps compared with the clock (a timer past 2^31-1 ms fires at once, and a suspended gateway has none); AbortSignal.timeout is a deadline, and only where bytes move',
    breaches: each(except(onDevice, client('clock.ts')), (source) => [
      ...source.calls.filter(({ text }) => timers.test(text.replace(/^globalThis\./, ''))),
      ...importsOf(source, (specifier) => /^(node:)?timers(\/promises)?$/.test(specifier)),
      ...source.members.filter(
        ({ text }) =>
          text === 'AbortSignal.timeout' &&
          ![
            ...['https.ts', 'mqtt.ts', 'aws-iot.ts'].map(client),
            'packages/agent/src/socket.ts',
          ].includes(source.path),
      ),
    ]),
    broken: [
      { [client('session.ts')]: 'setTimeout(again, 1000)' },
      { 'packages/agent/src/agent.ts': 'globalThis.setInterval(tick, 60_000)' },
      {
        'packages/agent/src/notify.ts': `import { setTimeout as wait } from 'node:timers/promises'`,
      },
      { [client('enroll.ts')]: 'const deadline = AbortSignal.timeout(30_000)' },
    ],
    kept: { [client('https.ts')]: 'const deadline = AbortSignal.timeout(deadlineMs)' },
  },
  {
    name: 'the environment is an argument',
    because:
      'an ambient variable is an option nobody passed: main.ts and cli.ts read it, elsewhere it is at most the default of a parameter',
    breaches: each(
      (path) => inPackage()(path) && !/\/src\/(main|cli)\.ts$/.test(path),
      (source) => [
        ...source.members.filter(
          ({ text, at }) =>
            /^(globalThis\.)?process\.env$/.test(text) &&
            !source.defaults.some((value) => value.at === at),
        ),
        ...importsOf(
          source,
          (specifier, { names }) =>
            /^(node:)?process$/.test(specifier) &&
            names.some((name) => /^(env|default|\*)$/.test(name)),
        ),
      ],
    ),
    broken: [
      { [client('enroll.ts')]: 'const proxy = process.env.HTTPS_PROXY' },
      { 'packages/server/src/lab.ts': `import { env } from 'node:process'` },
    ],
    kept: { [client('directory.ts')]: 'export function f(environment = process.env) {}' },
  },
  {
    name: 'judges do no input and no output',
    because:
      'sending and judging are apart, and so are facts and decisions: every refusal can be tested without a server',
    breaches: each(
      (path) =>
        judges.some((name) => path === client(`${name}.ts`)) ||
        path.startsWith(client('dialects/')) ||
        path === 'packages/agent/src/lifecycle.ts',
      (source) =>
        importsOf(source, (specifier, { form }) => form !== 'type' && inputOutput.test(specifier)),
    ),
    broken: [
      { [client('wire.ts')]: `import fs from 'node:fs'` },
      { [client('verdict.ts')]: `import { createSend } from './https.ts'` },
      { [client('dialects/certvend.ts')]: `import { readFileSync } from 'node:fs'` },
      { 'packages/agent/src/lifecycle.ts': `import { setTimeout } from 'node:timers/promises'` },
    ],
    kept: { [client('verdict.ts')]: `import type { Pending } from './store.ts'` },
  },
]
