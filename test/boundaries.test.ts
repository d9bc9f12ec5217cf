/** The house rules of the source tree, each with its reason, each shown to fail when it is broken. */
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'
import { arrows } from './boundaries/arrows.ts'
import { device } from './boundaries/device.ts'
import { shape } from './boundaries/shape.ts'
import { parseSource, type Source } from './boundaries/source.ts'

const root = path.resolve(import.meta.dirname, '..')

function readTree(folder: string): Source[] {
  return fs
    .readdirSync(path.join(root, folder), { recursive: true, encoding: 'utf8' })
    .map((name) => path.posix.join(folder, name))
    .filter((name) => name.endsWith('.ts') && !/(^|\/)(node_modules|dist)\//.test(name))
    .map((name) => parseSource(name, fs.readFileSync(path.join(root, name), 'utf8')))
}

const tree = ['packages', 'examples', 'test'].flatMap(readTree)
const world = (files: Readonly<Record<string, string>>): Source[] =>
  Object.entries(files).map(([name, text]) => parseSource(name, text))

test('the tree is read: the rules judge what is there', () => {
  const paths = tree.map((source) => source.path)
  expect(paths).toContain('packages/client/src/errors.ts')
  expect(paths).toContain('test/boundaries.test.ts')
  expect(paths.length).toBeGreaterThan(40)
})

const title = (files: Readonly<Record<string, string>>): string =>
  Object.entries(files)
    .map(([name, text]) => `${name}: ${text.trim().slice(0, 80).replaceAll('\n', '; ')}`)
    .join(' | ')

describe.each([...arrows, ...device, ...shape])('$name', (rule) => {
  test('holds', () => {
    const found = rule
      .breaches(tree)
      .map(({ path, line, text }) => `${path}:${line}: ${text.split('\n')[0]}`)
    expect(found, `${rule.name}: ${rule.because}`).toEqual([])
  })

  for (const files of rule.broken)
    test(`is broken by ${title(files)}`, () => {
      expect(rule.breaches(world(files)).map(({ path }) => path)).toContain(Object.keys(files)[0])
    })

  if (rule.kept)
    test('is kept by what only comes close', () => {
      expect(rule.breaches(world(rule.kept ?? {}))).toEqual([])
    })
})
