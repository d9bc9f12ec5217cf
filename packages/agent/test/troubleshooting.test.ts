/** The page says what doctor does: both are made from one table. */
import fs from 'node:fs'
import { describe, expect, it } from 'vitest'
import { diagnose, docsOf } from '../src/doctor/diagnosis.ts'
import { measuredPart, troubleshootingPage } from '../src/doctor/page.ts'
import { checks } from '../src/doctor/table.ts'

const docs = new URL('../../../docs/', import.meta.url)
const page = fs.readFileSync(new URL('troubleshooting.md', docs), 'utf8')
const names = checks.map(({ name }) => name)

describe('docs/troubleshooting.md', () => {
  it('is what the table makes of it (npm run test:doctor -- --tables)', () => {
    expect(page).toBe(troubleshootingPage(measuredPart(page)))
  })

  it('has an anchor for each finding’s link', () => {
    const anchors = [...page.matchAll(/^## (.*)$/gm)].map(([, heading]) => heading)
    for (const name of names) {
      expect(docsOf(name)).toBe(`docs/troubleshooting.md#${name}`)
      expect(anchors).toContain(name)
    }
  })

  it('leads nowhere that is not there', () => {
    for (const [, file, anchor] of page.matchAll(/\]\(([a-z-]*\.md)?(?:#([a-z0-9_-]+))?\)/g)) {
      const text = file ? fs.readFileSync(new URL(file, docs), 'utf8') : page
      const anchors = [...text.matchAll(/^#+ (.*)$/gm)].map(([, heading = '']) =>
        heading.toLowerCase().replaceAll(' ', '-'),
      )
      if (anchor) expect(anchors, `${file}#${anchor}`).toContain(anchor)
    }
  })
})

describe('the table of checks', () => {
  it('has at least twenty-five, each with a name of its own', () => {
    expect(new Set(names).size).toBe(names.length)
    expect(names.length).toBeGreaterThanOrEqual(25)
  })

  it('names causes before their consequences', () => {
    for (const [at, { name, after = [] }] of checks.entries())
      for (const cause of after) {
        expect(names, `${name} comes after ${cause}`).toContain(cause)
        expect(names.indexOf(cause), `${cause} before ${name}`).toBeLessThan(at)
      }
  })

  it('finds nothing where nothing was seen, and says why', () => {
    const { healthy, checks: outcomes } = diagnose({
      now: new Date('2027-03-01T12:00:00Z'),
      version: '0.1.0',
      user: 0,
      settings: { ok: true, value: nothingConfigured },
      openFiles: [],
      addresses: [],
      history: [],
    })
    expect(healthy).toBe(true)
    for (const { outcome, because } of outcomes)
      if (outcome !== 'fine') expect(because).toMatch(/^\S.*\S$/)
  })
})

const nothingConfigured = {
  stateDirectory: '/nowhere',
  socketDirectory: '/nowhere',
  pins: [],
  serial: { kind: 'default', from: 'the serial' },
  mqtt: {},
  dialect: {},
  renew: 'automatically',
  consumers: [],
} as const
