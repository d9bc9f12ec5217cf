/** The man pages say what `--help` says: both are made from one table, and this reads them back. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import type { Command } from 'commander'
import { describe, expect, it } from 'vitest'
import { program } from '../src/cli.ts'
import { parseConfig } from '../src/config.ts'
import { commandPage, configKeys, configurationPage } from '../src/manual.ts'
import { certvend } from './command.ts'
import { makeFolder } from './folder.ts'

const silent = {
  interactive: false,
  out() {},
  progress() {},
  warn() {},
  fail() {},
  ask: async () => undefined,
}
const root = program(silent, () => {})
const edition = { version: '0.1.0', date: new Date('2026-11-01T00:00:00Z') }
const page = commandPage(root, edition)

/** The text of a page, without its roff. */
const plain = (text: string): string => text.replaceAll('\\-', '-').replaceAll(/\\f[BIR]/g, '')

const leaves = (command: Command): Command[] =>
  command.commands.length === 0 ? [command] : command.commands.flatMap(leaves)
const path = (command: Command): string[] =>
  command.parent ? [...path(command.parent), command.name()] : []

describe('certvend(1)', () => {
  it.each(leaves(root).map((command) => path(command)))(
    'has what certvend %s %s --help has',
    async (...argv) => {
      const { stdout } = await certvend([...argv.filter(Boolean), '--help'], {
        cwd: makeFolder().path,
      })
      const section =
        plain(page)
          .split(`.SS certvend ${argv.filter(Boolean).join(' ')} `)[1]
          ?.split('\n.S')[0] ?? ''
      const flags = (text: string): string[] =>
        text.match(/(?<=^ {2}|^)--[a-z-]+( <\w+>)?(?= {2,}|$)/gm) ?? []
      expect(flags(stdout).length).toBeGreaterThan(0)
      expect(flags(section)).toEqual(flags(stdout))
      const example = /\nExample:\n {2}(certvend .*)/.exec(stdout)?.[1] ?? 'no example'
      expect(section).toContain(example.replaceAll('\\', '\\e'))
    },
  )

  it('names every command and no other', () => {
    const named = [...plain(page).matchAll(/^\.SS certvend ((?:[a-z-]+ ?)+)/gm)].map(([, name]) =>
      name?.trim(),
    )
    expect(named).toEqual(leaves(root).map((command) => path(command).join(' ')))
  })
})

describe('certvend.toml(5)', () => {
  it('has every key that agent.toml knows, and no other', () => {
    let known = ''
    try {
      parseConfig('unheard_of = 1', 'agent.toml')
    } catch (error) {
      known = (error as { hint: string }).hint
    }
    const top = [...new Set(configKeys.map(([key]) => key.split('.')[0]))]
    expect(known).toBe(`the keys are ${top.join(', ')}`)
    for (const [key] of configKeys.filter(([name]) => name.startsWith('mqtt.')))
      expect(() => parseConfig(`${key} = {}`, 'agent.toml')).toThrow(/expected/)
  })
})

describe('the man pages', () => {
  it.each([
    ['certvend.1', page],
    ['certvend.toml.5', configurationPage(edition)],
  ])('%s is sound', (name, text) => {
    const file = makeFolder().write(name, text)
    const mandoc = spawnSync('mandoc', ['-Tlint', '-Wwarning', file], { encoding: 'utf8' })
    if (mandoc.error) expect(text).toMatch(/^\.TH /)
    else expect(mandoc.stdout).toBe('')
    expect(fs.readFileSync(file, 'utf8')).not.toMatch(/^'/m)
  })
})
