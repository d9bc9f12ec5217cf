#!/usr/bin/env node
/**
 * Runs a script of the workspace with the pnpm that package.json names, fetched by npx when missing:
 * `node .ci/pnpm.mjs <script> [arguments]`. Needs Node and npm only.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const { packageManager, engines } = JSON.parse(fs.readFileSync(`${root}package.json`, 'utf8'))

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
const [needMajor, needMinor] = engines.node.replace('>=', '').split('.').map(Number)
if (major < needMajor || (major === needMajor && minor < needMinor)) {
  console.error(
    `Certvend needs Node ${needMajor}.${needMinor} or newer; this is ${process.version}.`,
  )
  process.exit(2)
}

if (!fs.existsSync(`${root}node_modules/.modules.yaml`))
  console.error('First run here: installing what package.json names, about 20 seconds.')

const child = spawn(
  'npx',
  ['--yes', packageManager, '--loglevel=warn', 'run', ...process.argv.slice(2)],
  {
    cwd: root,
    stdio: 'inherit',
    shell: process.platform === 'win32',
    env: { ...process.env, npm_config_update_notifier: 'false', npm_config_loglevel: 'error' },
  },
)
// A terminal's Ctrl-C reaches the child too; it decides when we are done.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
child.on('exit', (code, signal) => process.exit(signal ? 1 : (code ?? 1)))
