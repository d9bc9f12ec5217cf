/** What the documents say is what the code does. */
import { readFileSync } from 'node:fs'
import { CertvendError, dialectNames, errorCodes } from '@certvend/client'
import { type ProblemCode, problems } from '@certvend/client/wire'
import { describe, expect, it } from 'vitest'
import { begins, ends, renderDialects } from './documents/dialects.ts'

const read = (name: string): string =>
  readFileSync(new URL(`../docs/${name}`, import.meta.url), 'utf8')

describe('docs/errors.md', () => {
  const text = read('errors.md')
  const sections = new Map(
    text
      .split(/^## /m)
      .slice(1)
      .map((section) => [section.split('\n', 1)[0], section]),
  )

  it('has one section for each code of the table, in its order, and no other', () => {
    expect([...sections.keys()]).toEqual([...errorCodes])
  })

  it.each(errorCodes)('is where %s leads', (code) => {
    const [file, anchor] = new CertvendError(code, '').docs.split('#')
    expect(file).toBe('docs/errors.md')
    // As every renderer of Markdown makes anchors of headings.
    expect([...sections.keys()].map((heading) => heading?.toLowerCase())).toContain(anchor)
  })

  it.each(errorCodes)('tells the remedy of %s', (code) => {
    expect(sections.get(code)).toMatch(
      new RegExp(`\\*Remedy: ${new CertvendError(code, '').remedy}[.;]`),
    )
  })
})

describe('docs/protocol.md', () => {
  const rows = new Map(
    [...read('protocol.md').matchAll(/^\| `([a-z-]+)` \| (\d{3}) \| `(ERR_[A-Z_]+)` \|$/gm)].map(
      ([, code, status, meaning]) => [code, { status: Number(status), meaning }],
    ),
  )

  it('has one row for each problem, and no other', () => {
    expect([...rows.keys()].sort()).toEqual(Object.keys(problems).sort())
  })

  it.each(Object.keys(problems) as ProblemCode[])('tells the status of %s', (code) => {
    expect(rows.get(code)?.status).toBe(problems[code])
    expect(errorCodes).toContain(rows.get(code)?.meaning)
  })
})

describe('docs/dialects.md', () => {
  it('has what the code has: npm run docs:dialects writes it', async () => {
    const text = read('dialects.md')
    const generated = text.slice(text.indexOf(begins), text.indexOf(ends) + ends.length)
    expect(generated).toBe(await renderDialects())
  })

  it.each(dialectNames)(
    'tells every refusal of %s, its request and what follows a lost answer',
    (name) => {
      const section = read('dialects.md').split(`### ${name}\n`)[1]?.split('\n### ')[0] ?? ''
      for (const row of ['| request |', '| success |', '| repeat |', '| after a lost answer |'])
        expect(section).toContain(row)
    },
  )
})
