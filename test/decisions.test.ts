/** The decision records: numbered without gap or double, and every runtime dependency accounted for. */
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, test } from 'vitest'

const root = path.resolve(import.meta.dirname, '..')
const folder = path.join(root, 'docs', 'decisions')
const read = (...names: string[]): string => fs.readFileSync(path.join(...names), 'utf8')

describe('decision records', () => {
  const records = fs.readdirSync(folder).filter((name) => /^\d/.test(name))

  test('are numbered from 1, without a gap and without a double', () => {
    const numbers = records.map((name) => Number(name.slice(0, 4))).sort((a, b) => a - b)
    expect(numbers.length).toBeGreaterThan(0)
    expect(numbers).toEqual(numbers.map((_, at) => at + 1))
  })

  test('are named NNNN-title.md and open with their number', () => {
    for (const name of records) {
      expect(name).toMatch(/^\d{4}-[a-z0-9-]+\.md$/)
      const [title] = read(folder, name).split('\n')
      expect(title, name).toMatch(new RegExp(`^# ${Number(name.slice(0, 4))}\\. \\w`))
    }
  })
})

describe('0002-dependencies.md has a row for every runtime dependency, and for nothing else', () => {
  /** The names in the first column of the table below a package's heading. */
  const rows = (text: string, heading: string): string[] =>
    [
      ...(text.split(/^## /m).find((part) => part.startsWith(`${heading}\n`)) ?? '').matchAll(
        /^\| `([^`]+)`/gm,
      ),
    ].map(([, name]) => name as string)

  const text = read(folder, '0002-dependencies.md')
  test.each(['client', 'agent', 'server'])('@certvend/%s', (name) => {
    const { dependencies, peerDependencies, optionalDependencies } = JSON.parse(
      read(root, 'packages', name, 'package.json'),
    )
    const needed = { ...dependencies, ...peerDependencies, ...optionalDependencies }
    expect(rows(text, `@certvend/${name}`).sort()).toEqual(Object.keys(needed).sort())
  })

  test('a row under another heading does not count', () => {
    const two = '## a\n\n| package | why |\n| --- | --- |\n| `x` 7 | y |\n\n## b\n\n| `z` | |\n'
    expect(rows(two, 'a')).toEqual(['x'])
    expect(rows(two, 'b')).toEqual(['z'])
    expect(rows(two, 'c')).toEqual([])
  })
})
