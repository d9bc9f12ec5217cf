/**
 * `npm run check`: format, lint, types, and the three packages as they would be published.
 *
 * Prints one line per step, and a step's own output only when it fails.
 */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
process.chdir(root)
const bin = (name) => path.join(root, 'node_modules', '.bin', name)
const { packageManager } = JSON.parse(fs.readFileSync('package.json', 'utf8'))
const pnpm = ['npx', '--yes', packageManager]

let passed = 0
let failed = 0

/** Runs a command; a failure prints what it said. */
function step(title, command, cwd = root) {
  const [program, ...args] = command
  const began = performance.now()
  const result = spawnSync(program, args, {
    cwd,
    encoding: 'utf8',
    env: { ...process.env, FORCE_COLOR: '0', npm_config_update_notifier: 'false' },
  })
  finish(
    title,
    began,
    result.status === 0,
    `${result.stdout ?? ''}${result.stderr ?? ''}${result.error ?? ''}`,
  )
  return result.status === 0
}

function finish(title, began, ok, output) {
  const seconds = ((performance.now() - began) / 1000).toFixed(1)
  console.log(`${ok ? 'ok    ' : 'FAILED'} ${title} (${seconds} s)`)
  if (ok) passed++
  else {
    failed++
    console.log(output.trimEnd().replace(/^/gm, '       '))
  }
}

step('format and lint', [bin('biome'), 'ci', '--error-on-warnings', '--colors=off', '.'])
step('types', [bin('tsc'), '-b'])
step('lock file agrees with the manifests', [
  ...pnpm,
  'install',
  '--frozen-lockfile',
  '--lockfile-only',
])

const lock = fs.readFileSync('pnpm-lock.yaml', 'utf8')
const hosts = lock.split('\n').filter((line) => /https?:\/\/|tarball:/.test(line))
finish('lock file names no host', performance.now(), hosts.length === 0, hosts.join('\n'))

const out = fs.mkdtempSync(path.join(os.tmpdir(), 'certvend-check-'))
try {
  for (const name of ['client', 'agent', 'server']) {
    const folder = path.join(root, 'packages', name)
    const packed = path.join(out, `${name}.tgz`)
    if (!step(`@certvend/${name}: packs`, [...pnpm, 'pack', '--out', packed], folder)) continue
    step(`@certvend/${name}: publint`, [bin('publint'), 'run', packed, '--strict'])
    step(`@certvend/${name}: are the types wrong`, [
      bin('attw'),
      packed,
      '--profile',
      'esm-only',
      '--no-color',
      '--no-emoji',
    ])
  }
} finally {
  fs.rmSync(out, { recursive: true, force: true })
}

console.log(`\ncheck: ${passed} passed, ${failed} failed`)
process.exitCode = failed === 0 ? 0 : 1
