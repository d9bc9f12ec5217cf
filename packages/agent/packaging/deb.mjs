/**
 * Builds `certvend_<version>_all.deb`: `node packages/agent/packaging/deb.mjs [--out DIRECTORY]
 * [--debian-version VERSION]`, after `tsc -b`.
 *
 * The same commit gives the same bytes: times come from SOURCE_DATE_EPOCH, else from the commit, and
 * everything belongs to root. Needs dpkg-deb.
 */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { program } from '../dist/cli.js'
import { commandPage, configurationPage } from '../dist/manual.js'

const here = path.dirname(fileURLToPath(import.meta.url))
const root = path.resolve(here, '../../..')
const { version } = JSON.parse(fs.readFileSync(path.join(here, '../package.json'), 'utf8'))
const { values } = parseArgs({
  options: {
    out: { type: 'string', default: path.join(root, 'dist') },
    'debian-version': { type: 'string', default: version },
  },
})
const debianVersion = values['debian-version']
const maintainer = 'Certvend maintainers <maintainers@certvend.invalid>'
const epoch = Number(
  process.env.SOURCE_DATE_EPOCH ??
    execFileSync('git', ['log', '-1', '--format=%ct'], { cwd: root, encoding: 'utf8' }),
)
const date = new Date(epoch * 1000)

const stage = fs.mkdtempSync(path.join(tmpdir(), 'certvend-deb-'))
const put = (name, content, mode = 0o644) => {
  const file = path.join(stage, name)
  fs.mkdirSync(path.dirname(file), { recursive: true, mode: 0o755 })
  fs.writeFileSync(file, content)
  fs.chmodSync(file, mode)
}
const copy = (name, from, mode) => put(name, fs.readFileSync(path.join(here, from)), mode)
const compress = (text) => gzipSync(text, { level: 9 })

/** One bundle, in chunks: what a boot does not need is not read. */
async function bundle() {
  const result = await build({
    absWorkingDir: root,
    entryPoints: [path.join(here, '../dist/main.js')],
    outdir: path.join(stage, 'usr/share/certvend/dist'),
    bundle: true,
    splitting: true,
    minify: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    legalComments: 'none',
    metafile: true,
    external: ['aws-iot-device-sdk-v2', 'aws-crt'],
    // What is bundled of CommonJS asks for Node's own modules by require.
    banner: {
      js: "import{createRequire as certvendRequire}from'node:module';const require=certvendRequire(import.meta.url);",
    },
  })
  const directory = path.join(stage, 'usr/share/certvend/dist')
  for (const name of fs.readdirSync(directory)) fs.chmodSync(path.join(directory, name), 0o644)
  const main = path.join(directory, 'main.js')
  const text = fs.readFileSync(main, 'utf8').replace(/^#!.*\n/, '#!/usr/bin/node\n')
  fs.writeFileSync(main, text)
  fs.chmodSync(main, 0o755)
  put(
    'usr/share/certvend/package.json',
    `${JSON.stringify({ name: 'certvend', version, type: 'module' })}\n`,
  )
  fs.mkdirSync(path.join(stage, 'usr/bin'), { recursive: true })
  fs.symlinkSync('../share/certvend/dist/main.js', path.join(stage, 'usr/bin/certvend'))
  return Object.keys(result.metafile.inputs)
}

/** Who wrote what is in the bundle, and under which licence. */
function copyright(inputs) {
  const folders = new Set(
    inputs.flatMap((name) => /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(name)?.[1] ?? []),
  )
  const parts = [...folders].sort().map((folder) => {
    const at = path.join(root, folder)
    const manifest = JSON.parse(fs.readFileSync(path.join(at, 'package.json'), 'utf8'))
    const file = fs.readdirSync(at).find((name) => /^(licen[sc]e|copying)/i.test(name))
    const text = file ? fs.readFileSync(path.join(at, file), 'utf8').trim() : ''
    return `${manifest.name} ${manifest.version} (${manifest.license})\n\n${text}\n`
  })
  const line = `${'-'.repeat(72)}\n`
  return `Certvend, the agent and the client library.

Copyright the Certvend contributors. Licensed under the Apache License, Version 2.0;
on Debian systems the text is in /usr/share/common-licenses/Apache-2.0.

Bundled with it:

${line}${parts.join(line)}`
}

const control = (installedKilobytes) => `Package: certvend
Version: ${debianVersion}
Section: net
Priority: optional
Architecture: all
Depends: nodejs (>= 20), systemd
Installed-Size: ${installedKilobytes}
Maintainer: ${maintainer}
Description: device identity from first boot to MQTT with mutual TLS
 The agent gets this device its certificate from a vending machine, with a
 serial and a one-time token, over HTTPS pinned to a CA of your choice. It
 makes the key on the device, keeps both through power cuts, and keeps the
 device online over MQTT with mutual TLS.
`

const changelog = `certvend (${debianVersion}) stable; urgency=medium

  * See /usr/share/doc/certvend/NEWS.gz.

 -- ${maintainer}  ${date.toUTCString().replace('GMT', '+0000')}
`

function* walk(directory) {
  for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
    const file = path.join(directory, entry.name)
    if (entry.isDirectory()) yield* walk(file)
    yield { file, entry }
  }
}

try {
  const inputs = await bundle()
  const silent = { interactive: false, out() {}, progress() {}, warn() {}, fail() {} }
  const edition = { version, date }
  put(
    'usr/share/man/man1/certvend.1.gz',
    compress(
      commandPage(
        program(silent, () => {}),
        edition,
      ),
    ),
  )
  put('usr/share/man/man5/certvend.toml.5.gz', compress(configurationPage(edition)))
  for (const unit of [
    'certvend.service',
    'certvend-consumers.service',
    'certvend-consumers.path',
    'certvend-consumers-resume.service',
  ])
    copy(`usr/lib/systemd/system/${unit}`, unit)
  copy('usr/lib/sysusers.d/certvend.conf', 'certvend.sysusers')
  copy('etc/certvend/agent.toml', 'agent.toml')
  put('usr/share/doc/certvend/copyright', copyright(inputs))
  // Where errors and findings lead: `more: docs/errors.md#…`.
  for (const name of ['errors.md', 'troubleshooting.md', 'getting-through.md'])
    put(`usr/share/doc/certvend/docs/${name}`, fs.readFileSync(path.join(root, 'docs', name)))
  put('usr/share/doc/certvend/changelog.gz', compress(changelog))
  put(
    'usr/share/doc/certvend/NEWS.gz',
    compress(fs.readFileSync(path.join(root, 'CHANGELOG.md'), 'utf8')),
  )

  const files = [...walk(stage)]
    .filter(({ entry }) => entry.isFile())
    .map(({ file }) => path.relative(stage, file))
    .sort()
  const bytes = files.reduce((sum, name) => sum + fs.statSync(path.join(stage, name)).size, 0)
  const md5 = (name) =>
    createHash('md5')
      .update(fs.readFileSync(path.join(stage, name)))
      .digest('hex')
  const sums = files
    .filter((name) => !name.startsWith('etc/'))
    .map((name) => `${md5(name)}  ${name}\n`)
    .join('')
  put('DEBIAN/control', control(Math.ceil(bytes / 1024)))
  put('DEBIAN/conffiles', '/etc/certvend/agent.toml\n')
  put('DEBIAN/md5sums', sums)
  for (const script of ['postinst', 'prerm', 'postrm'])
    copy(`DEBIAN/${script}`, `debian/${script}`, 0o755)

  for (const { file, entry } of walk(stage)) {
    if (entry.isDirectory()) fs.chmodSync(file, 0o755)
    fs.lutimesSync(file, date, date)
  }
  fs.chmodSync(stage, 0o755)
  fs.lutimesSync(stage, date, date)
  fs.mkdirSync(values.out, { recursive: true })
  const target = path.join(values.out, `certvend_${debianVersion}_all.deb`)
  execFileSync('dpkg-deb', ['--root-owner-group', '-Zxz', '--build', stage, target], {
    env: { ...process.env, SOURCE_DATE_EPOCH: String(epoch) },
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  process.stdout.write(`${target}: ${Math.ceil(fs.statSync(target).size / 1024)} KB\n`)
} finally {
  fs.rmSync(stage, { recursive: true })
}
