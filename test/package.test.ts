/** The Debian package: the same bytes twice, what is in it, and what lintian says of it. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { temporaryDirectory } from './temporary.ts'

const root = path.resolve(import.meta.dirname, '..')
const script = path.join(root, 'packages/agent/packaging/deb.mjs')
const here = (program: string): boolean => !spawnSync(program, ['--version']).error
const without = here('dpkg-deb') ? undefined : 'no dpkg-deb'

function build(out: string): string {
  execFileSync(process.execPath, [script, '--out', out], {
    env: { PATH: process.env.PATH, SOURCE_DATE_EPOCH: '1790000000' },
  })
  const [name = ''] = fs.readdirSync(out)
  return path.join(out, name)
}

describe('the Debian package', () => {
  let file = ''
  beforeAll(() => {
    if (without) return
    const out = fs.mkdtempSync(path.join(root, 'test/dist/deb-'))
    file = build(out)
    return () => fs.rmSync(out, { recursive: true })
  })
  const dpkg = (...argv: string[]): string => execFileSync('dpkg-deb', argv, { encoding: 'utf8' })

  it('is the same, byte for byte, when built again', (context) => {
    context.skip(without !== undefined, without)
    expect(fs.readFileSync(build(temporaryDirectory())).equals(fs.readFileSync(file))).toBe(true)
  })

  it('is for every architecture, needs Node 20, and keeps the configuration', (context) => {
    context.skip(without !== undefined, without)
    const control = dpkg('--field', file)
    expect(control).toContain('\nArchitecture: all\n')
    expect(control).toContain('\nDepends: nodejs (>= 20), systemd\n')
    expect(dpkg('--ctrl-tarfile', file)).toContain('/etc/certvend/agent.toml\n')
    expect(fs.statSync(file).size).toBeLessThan(512 * 1024)
  })

  it('holds a command that runs without node_modules, and its manual', (context) => {
    context.skip(without !== undefined, without)
    const into = temporaryDirectory()
    dpkg('--extract', file, into)
    const command = path.join(into, 'usr/share/certvend/dist/main.js')
    expect(fs.readFileSync(command, 'utf8')).toMatch(/^#!\/usr\/bin\/node\n/)
    const run = (...argv: string[]): string =>
      execFileSync(process.execPath, [command, ...argv], { cwd: into, encoding: 'utf8' })
    expect(run('--version')).toMatch(/^certvend \d/)
    expect(
      JSON.parse(run('status', '--json', '--state-dir', path.join(into, 'state'))),
    ).toMatchObject({
      state: 'none',
    })
    for (const page of ['man1/certvend.1.gz', 'man5/certvend.toml.5.gz'])
      expect(fs.existsSync(path.join(into, 'usr/share/man', page))).toBe(true)
  })

  it('ships a configuration in which every line is a comment that works when it is none', (context) => {
    context.skip(without !== undefined, without)
    const toml = fs.readFileSync(path.join(root, 'packages/agent/packaging/agent.toml'), 'utf8')
    expect(toml.split('\n').filter((line) => line !== '' && !line.startsWith('#'))).toEqual([])
    const into = temporaryDirectory()
    fs.writeFileSync(path.join(into, 'agent.toml'), toml.replace(/^#(\w+ = )/gm, '$1'))
    const argv = ['config', 'check', '--config', 'agent.toml', '--state-dir', 'state']
    const binary = path.join(root, 'packages/agent/dist/main.js')
    const { stderr } = spawnSync(process.execPath, [binary, ...argv], {
      cwd: into,
      encoding: 'utf8',
    })
    expect(stderr).toContain('the pin file') // it asks for the file, so the rest was understood
  })

  it('is clean by lintian', (context) => {
    context.skip(without !== undefined || !here('lintian'), 'no lintian')
    const { stdout } = spawnSync('lintian', ['--tag-display-limit', '0', file], {
      encoding: 'utf8',
    })
    expect(stdout).toBe('')
  }, 120_000)
})
