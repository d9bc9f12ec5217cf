/** The shape of every file: small, named after a noun or a verb, without state of its own. */
import { each, inPackage, type Rule } from './rule.ts'

const mostLines = 400
const everywhere = (path: string): boolean => !path.endsWith('.d.ts')
const vague = /(^|[-/])(utils?|helpers?|common|types|manager|service|misc|shared)(-|\/|\.ts$)/

/** The files that package.json publishes under a name of their own. */
const published = (path: string): boolean =>
  /^packages\/[^/]+\/src\/(index|wire|csr|lab|aws-iot|aws-credentials|fleet-provisioning)\.ts$/.test(
    path,
  )

export const shape: readonly Rule[] = [
  {
    name: 'index.ts re-exports and nothing else',
    because: 'the public surface is read in one place, and what it does in another',
    breaches: each(
      (path) => inPackage()(path) && path.endsWith('/index.ts'),
      ({ ownStatements }) => ownStatements.filter(({ text }) => text !== 'export {}'),
    ),
    broken: [
      { 'packages/client/src/index.ts': 'export const version = 1' },
      { 'packages/agent/src/index.ts': `import { one } from './one.ts'\nexport { one }` },
    ],
    kept: { 'packages/client/src/index.ts': `export { enroll } from './enroll.ts'` },
  },
  {
    name: 'no barrel inside a package',
    because:
      'a name is imported from the file that defines it; only a published file passes names on',
    breaches: each(
      (path) => inPackage()(path) && !published(path),
      ({ imports }) =>
        imports
          .filter(({ form, specifier }) => form === 'reexport' && specifier.startsWith('.'))
          .map(({ specifier, line }) => ({ text: `re-exports ${specifier}`, line })),
    ),
    broken: [
      { 'packages/server/src/registry/all.ts': `export * from './libsql.ts'` },
      { 'packages/client/src/store.ts': `export { type One } from './one.ts'` },
    ],
    kept: {
      'packages/server/src/lab.ts': `export type { One } from './one.ts'`,
      'packages/server/src/x509.ts': `export * from '@peculiar/x509'`,
    },
  },
  {
    name: 'no default exports',
    because: 'one thing has one name, in every file that uses it',
    breaches: each(everywhere, ({ defaultExports }) => defaultExports),
    broken: [
      { 'packages/client/src/one.ts': 'export default function one() {}' },
      { 'examples/one.ts': 'const one = 1\nexport { one as default }' },
    ],
    kept: { 'packages/client/src/one.ts': `import one from 'env-paths'` },
  },
  {
    name: `no file over ${mostLines} lines`,
    because: 'a file is one noun or one verb and can be explained in its caption; split it by noun',
    breaches: each(everywhere, ({ lines }) =>
      lines > mostLines ? [{ text: `${lines} lines`, line: lines }] : [],
    ),
    broken: [{ 'test/one.test.ts': '\n'.repeat(mostLines + 1) }],
    kept: { 'test/one.test.ts': '\n'.repeat(mostLines) },
  },
  {
    name: 'no file is called utils, helpers, common, types, manager or service',
    because: 'such a name says nothing, so anything goes in',
    breaches: each(
      (path) => vague.test(path),
      () => [{ text: 'a name that says nothing', line: 1 }],
    ),
    broken: [
      { 'packages/client/src/utils.ts': '' },
      { 'test/helpers/one.ts': '' },
      { 'test/test-helpers.ts': '' },
      { 'packages/server/src/registry-types.ts': '' },
    ],
    kept: { 'packages/server/src/services.ts': '', 'packages/client/src/typescript.ts': '' },
  },
  {
    name: 'no module-level mutable state',
    because: 'two agents can live in one process, and a test starts from nothing',
    breaches: each(inPackage(), ({ mutableState }) => mutableState),
    broken: [
      { 'packages/client/src/one.ts': 'let connected = false' },
      { 'packages/client/src/one.ts': 'export const cache = new Map<string, number>()' },
      { 'packages/agent/src/one.ts': 'const queue: string[] = []' },
    ],
    kept: {
      'packages/client/src/one.ts': `const codes = new Set(['a'])\nexport function f() { let local = 1; return local }`,
    },
  },
  {
    name: 'a class only for the error',
    because: 'functions and readonly data: state is a closure, and a border is an interface',
    breaches: each(
      (path) => inPackage()(path) && path !== 'packages/client/src/errors.ts',
      ({ classes }) => classes,
    ),
    broken: [{ 'packages/agent/src/agent.ts': 'export class Agent {}' }],
    kept: { 'packages/client/src/errors.ts': 'export class CertvendError extends Error {}' },
  },
]
