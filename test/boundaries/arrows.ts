/** Who may import whom (the arrows between packages, and from files to libraries). */
import { each, importsOf, inPackage, isFrom, type Rule } from './rule.ts'
import type { Source } from './source.ts'

const ours = (specifier: string): boolean => specifier.startsWith('@certvend/')
const outside = (folder: string): boolean => folder.startsWith('examples/') || isTest(folder)
const isTest = (path: string): boolean => path.startsWith('test/')

/** Where a relative specifier of `path` leads, from the repository's root. */
const target = (path: string, specifier: string): string =>
  new URL(specifier, `file:///${path}`).pathname.slice(1)

/** The folder that a file's relative imports must not leave. */
const home = (path: string): string =>
  /^(packages\/[^/]+\/src|examples|test)\//.exec(path)?.[0] ?? ''

/** One library, the only files that may import it, and why. */
function onlyIn(library: string, paths: readonly string[], because: string): Rule {
  const names = paths.map((path) => path.split('/src/')[1]).join(' and ')
  return {
    name: `only ${names} imports ${library}`,
    because,
    breaches: each(
      (path) => inPackage()(path) && !path.endsWith('.d.ts') && !paths.includes(path),
      (source) => importsOf(source, (specifier) => isFrom(specifier, library)),
    ),
    broken: [
      { 'packages/client/src/enroll.ts': `import { one } from '${library}'` },
      { 'packages/agent/src/agent.ts': `import type { One } from '${library}/inner.js'` },
      { 'packages/server/src/handler.ts': `const all = await import('${library}')` },
      { 'packages/client/src/session.ts': `export { one } from '${library}'` },
    ],
    kept: Object.fromEntries([
      ['packages/client/src/odd.ts', `import { one } from '${library}-like'`],
      ...paths.map((path) => [path, `import { one } from '${library}'`]),
    ]),
  }
}

/** A file that must not be loaded with the rest. */
function lazily(path: string, because: string): Rule {
  const name = path.split('/').at(-1) as string
  return {
    name: `${name} is loaded by import() only`,
    because,
    breaches: each(inPackage('client', 'agent'), (source) =>
      importsOf(
        source,
        (specifier, { form }) =>
          specifier.startsWith('.') &&
          target(source.path, specifier) === path &&
          (form === 'static' || form === 'reexport'),
      ),
    ),
    broken: [
      { 'packages/client/src/enroll.ts': `import { one } from './${name}'` },
      { 'packages/client/src/index.ts': `export { one } from './${name}'` },
    ],
    kept: {
      'packages/client/src/enroll.ts': `import type { One } from './${name}'\nawait import('./${name}')`,
    },
  }
}

export const arrows: readonly Rule[] = [
  {
    name: 'client imports no other package of ours',
    because: 'firmware installs the client alone; the agent and the server stand on it, never back',
    breaches: each(inPackage('client'), (source) => importsOf(source, ours)),
    broken: [
      { 'packages/client/src/enroll.ts': `import { startLab } from '@certvend/server/lab'` },
      { 'packages/client/src/store.ts': `import type { Facts } from '@certvend/agent'` },
    ],
  },
  {
    name: 'agent imports client alone',
    because: 'a gateway runs no vending machine: the agent knows the server by its protocol',
    breaches: each(inPackage('agent'), (source) =>
      importsOf(source, (specifier) => ours(specifier) && !isFrom(specifier, '@certvend/client')),
    ),
    broken: [
      { 'packages/agent/src/agent.ts': `import { startLab } from '@certvend/server/lab'` },
      { 'packages/agent/src/cli.ts': `await import('@certvend/examples/demo.js')` },
    ],
    kept: { 'packages/agent/src/agent.ts': `import { enroll } from '@certvend/client'` },
  },
  {
    name: "server imports client's wire and csr only",
    because:
      'both sides share one vocabulary and nothing else: the server keeps no credential and pins nobody',
    breaches: each(inPackage('server'), (source) =>
      importsOf(
        source,
        (specifier) =>
          ours(specifier) &&
          specifier !== '@certvend/client/wire' &&
          specifier !== '@certvend/client/csr',
      ),
    ),
    broken: [
      { 'packages/server/src/lab.ts': `import { enroll } from '@certvend/client'` },
      { 'packages/server/src/cli.ts': `import type { Facts } from '@certvend/agent'` },
    ],
    kept: {
      'packages/server/src/policy.ts': `import { readCsr } from '@certvend/client/csr'\nimport type { Endpoint } from '@certvend/client/wire'`,
    },
  },
  {
    name: 'a relative import stays at home',
    because:
      'packages are known by name, so that examples and tests import what a stranger would install',
    breaches: each(
      (path) => home(path) !== '',
      (source) =>
        importsOf(
          source,
          (specifier) =>
            specifier.startsWith('.') &&
            !target(source.path, specifier).startsWith(home(source.path)),
        ),
    ),
    broken: [
      { 'test/demo.test.ts': `import { enroll } from '../packages/client/src/enroll.ts'` },
      { 'examples/firmware.ts': `import { enroll } from '../packages/client/dist/index.js'` },
      { 'packages/agent/src/cli.ts': `export * from '../../client/src/index.ts'` },
      { 'packages/client/src/csr.ts': `await import('../test/fixtures.ts')` },
    ],
    kept: { 'packages/server/src/registry/libsql.ts': `import { hash } from '../tokens.ts'` },
  },
  {
    name: 'examples and test are imported by nobody else',
    because: 'what is published must not lean on what is not',
    breaches: each(
      (path) => inPackage()(path) || outside(path),
      (source) =>
        importsOf(
          source,
          (specifier) =>
            isFrom(specifier, '@certvend/test') ||
            (isFrom(specifier, '@certvend/examples') && !isTest(source.path)),
        ),
    ),
    broken: [
      { 'examples/demo.ts': `import { one } from '@certvend/test/one.js'` },
      { 'packages/client/src/one.ts': `import { one } from '@certvend/examples/one.js'` },
    ],
    kept: { 'test/examples.test.ts': `import { one } from '@certvend/examples/one.js'` },
  },
  {
    name: 'errors.ts imports nothing',
    because:
      'everything may throw, so everything imports errors.ts; it must never be part of a circle',
    breaches: each(
      (path) => path === 'packages/client/src/errors.ts',
      (source) => importsOf(source, () => true),
    ),
    broken: [
      { 'packages/client/src/errors.ts': `import { inspect } from 'node:util'` },
      { 'packages/client/src/errors.ts': `import type { Clock } from './clock.ts'` },
    ],
  },
  {
    name: 'no circles inside a package',
    because: 'a file can be read, and tested, after those it imports',
    breaches: circles,
    broken: [
      {
        'packages/client/src/a.ts': `import { b } from './b.ts'`,
        'packages/client/src/b.ts': `import { c } from './c.ts'`,
        'packages/client/src/c.ts': `export { a } from './a.ts'`,
      },
    ],
    kept: {
      'packages/client/src/a.ts': `import { b } from './b.ts'`,
      'packages/client/src/b.ts': `import type { A } from './a.ts'\nawait import('./a.ts')`,
    },
  },
  onlyIn(
    'undici',
    ['packages/client/src/https.ts'],
    'one file moves bytes over the pinned channel; another way out would go around the pins',
  ),
  onlyIn(
    'mqtt',
    ['packages/client/src/mqtt.ts', 'packages/client/src/outgoing-store.ts'],
    'the Session border keeps MQTT.js replaceable: its reconnect loop and its caches stay in one file',
  ),
  onlyIn(
    'aws-iot-device-sdk-v2',
    ['packages/client/src/aws-crt.ts'],
    'an optional peer with native code: one file knows it, and loads it when a connection is opened',
  ),
  onlyIn(
    'libsql',
    ['packages/server/src/registry/sql/sqlite.ts'],
    'the Registry border is the only way to a database',
  ),
  onlyIn(
    '@aws-sdk/client-dynamodb',
    [
      'packages/server/src/registry/dynamodb.ts',
      'packages/server/src/registry/dynamodb/tables.ts',
      'packages/server/src/registry/dynamodb/preparation.ts',
    ],
    'the Registry border is the only way to a database',
  ),
  onlyIn(
    'mysql2',
    ['packages/server/src/registry/sql/mysql.ts'],
    'the Registry border is the only way to a database',
  ),
  onlyIn(
    '@aws-sdk/client-iot',
    ['packages/server/src/issuer/iot-client.ts'],
    'one file knows how AWS IoT is called and how it refuses; the steps around it know neither',
  ),
  onlyIn(
    '@aws-sdk/client-iot-data-plane',
    ['packages/server/src/legacy/iot-shadows.ts'],
    'the vending machine speaks to no device by MQTT; one old URL reads and writes shadows',
  ),
  onlyIn(
    '@aws-sdk/client-kms',
    ['packages/server/src/issuer/ca-key.ts'],
    "the device CA's key is reached in one place, and AWS's libraries are loaded there only",
  ),
  onlyIn(
    '@aws-sdk/client-secrets-manager',
    ['packages/server/src/issuer/ca-key.ts'],
    "the device CA's key is reached in one place, and AWS's libraries are loaded there only",
  ),
  {
    name: 'aws-iot issuers are loaded by import() only',
    because: 'a vending machine with its own CA on one machine must not load the AWS SDK',
    breaches: each(
      (path) =>
        inPackage('server')(path) &&
        !/\/src\/(issuer\/(aws-iot|iot)-?[a-z-]*|issuer\/open-aws|sweep|lambda\/[a-z]+|aws-iot)\.ts$/.test(
          path,
        ),
      (source) =>
        importsOf(
          source,
          (specifier, { form }) =>
            /^(\.|.*\/issuer|\.\.)\/(aws-iot|aws-iot-own-ca|iot-client|open-aws|sweep)\.ts$/.test(
              specifier,
            ) &&
            (form === 'static' || form === 'reexport'),
        ),
    ),
    broken: [
      {
        'packages/server/src/serve.ts': `import { createAwsIotIssuer } from './issuer/aws-iot.ts'`,
      },
      { 'packages/server/src/index.ts': `export { sweep } from './sweep.ts'` },
    ],
    kept: {
      'packages/server/src/serve.ts': `import type { Iot } from './issuer/iot-client.ts'\nawait import('./issuer/aws-iot.ts')`,
      'packages/server/src/sweep.ts': `import { isRefusal } from './issuer/iot-client.ts'`,
    },
  },
  onlyIn(
    'aedes',
    ['packages/server/src/broker.ts'],
    "the broker belongs to the lab; the vending machine's own code does not know it",
  ),
  lazily(
    'packages/client/src/https.ts',
    'a boot with a stored credential sends nothing, so it must not pay for undici',
  ),
  {
    name: 'aws-crt.ts loads the SDK by import() only',
    because:
      'where it is not installed, or has no binary, that is said in words and not by a loader',
    breaches: each(
      (path) => path === 'packages/client/src/aws-crt.ts',
      (source) =>
        importsOf(
          source,
          (specifier, { form }) =>
            isFrom(specifier, 'aws-iot-device-sdk-v2') && form !== 'dynamic' && form !== 'type',
        ),
    ),
    broken: [{ 'packages/client/src/aws-crt.ts': `import { io } from 'aws-iot-device-sdk-v2'` }],
    kept: {
      'packages/client/src/aws-crt.ts': `import type { io } from 'aws-iot-device-sdk-v2'\nawait import('aws-iot-device-sdk-v2')`,
    },
  },
  {
    name: 'aws-iot.ts is loaded by whoever asks for it, and by nobody else',
    because:
      'who imports @certvend/client must not meet native code, which 32-bit ARM does not have',
    breaches: each(
      (path) =>
        inPackage('client', 'agent')(path) && !/\/src\/aws-(iot|crt|refusal)\.ts$/.test(path),
      (source) =>
        importsOf(
          source,
          (specifier, { form }) =>
            /\/aws-(iot|crt)(\.ts)?$/.test(specifier) &&
            form !== 'type' &&
            !(form === 'dynamic' && specifier === '@certvend/client/aws-iot'),
        ),
    ),
    broken: [
      { 'packages/client/src/index.ts': `export { openSession } from './aws-iot.ts'` },
      { 'packages/client/src/session.ts': `await import('./aws-iot.ts')` },
      { 'packages/agent/src/online.ts': `import { openSession } from '@certvend/client/aws-iot'` },
    ],
    kept: {
      'packages/client/src/aws-iot.ts': `import { openLine } from './aws-crt.ts'`,
      'packages/agent/src/online.ts': `await import('@certvend/client/aws-iot')`,
    },
  },
  lazily(
    'packages/client/src/mqtt.ts',
    'a program that only enrolls, or brings its own transport, must not pay for MQTT.js',
  ),
  lazily(
    'packages/client/src/aws-credentials.ts',
    'it has a subpath of its own: whoever does not call AWS must not load it',
  ),
  lazily(
    'packages/client/src/fleet-provisioning.ts',
    'it has a subpath of its own: whoever does not use Fleet Provisioning must not load it',
  ),
  {
    name: 'https.ts loads undici by import() only',
    because: "V8's flag for Node 20 must be set before undici's WebAssembly is compiled",
    breaches: each(
      (path) => path === 'packages/client/src/https.ts',
      (source) =>
        importsOf(
          source,
          (specifier, { form }) =>
            isFrom(specifier, 'undici') && form !== 'dynamic' && form !== 'type',
        ),
    ),
    broken: [{ 'packages/client/src/https.ts': `import { Client } from 'undici'` }],
    kept: {
      'packages/client/src/https.ts': `import type { Dispatcher } from 'undici'\nawait import('undici/lib/dispatcher/client.js')`,
    },
  },
  {
    name: 'only handler.ts, listen.ts and lambda.ts render errors',
    because: 'one edge renders (RFC 9457): whatever happens inside, a stranger sees a listed code',
    breaches: each(
      (path) =>
        inPackage('server')(path) && !/\/src\/(handler|listen|lambda|problem)\.ts$/.test(path),
      (source) =>
        importsOf(
          source,
          (specifier, { form }) => form !== 'type' && /\/problem\.ts$/.test(specifier),
        ),
    ),
    broken: [
      { 'packages/server/src/enrollment.ts': `import { renderProblem } from './problem.ts'` },
    ],
    kept: { 'packages/server/src/enrollment.ts': `import type { Problem } from './problem.ts'` },
  },
]

/** Imports that lead back to the file they stand in, types and import() aside. */
function circles(sources: readonly Source[]): ReturnType<Rule['breaches']> {
  const next = new Map(
    sources
      .filter(({ path }) => inPackage()(path))
      .map((source) => [
        source.path,
        source.imports
          .filter(
            ({ specifier, form }) => specifier.startsWith('.') && /^(static|reexport)$/.test(form),
          )
          .map(({ specifier, line }) => ({ to: target(source.path, specifier), line })),
      ]),
  )
  const reaches = (from: string, to: string, seen = new Set<string>()): boolean =>
    from === to ||
    (next.get(from) ?? []).some((edge) => {
      if (seen.has(edge.to)) return false
      seen.add(edge.to)
      return reaches(edge.to, to, seen)
    })
  return [...next].flatMap(([path, edges]) =>
    edges
      .filter(({ to }) => reaches(to, path))
      .map(({ to, line }) => ({ path, line, text: `imports ${to}, which leads back here` })),
  )
}
