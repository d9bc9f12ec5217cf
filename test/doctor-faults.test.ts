/** The list of faults that doctor is measured by keeps its size and its reach. */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { doubles, faults, healthy } from './doctor/faults.ts'

describe('the faults', () => {
  it('are forty or more, and at least twenty checks are the cause of one', () => {
    expect(Object.keys(faults).length).toBeGreaterThanOrEqual(40)
    const causes = new Set(Object.values(faults).map(({ expected }) => expected))
    expect(causes.size).toBeGreaterThanOrEqual(20)
  })

  it('come in ten pairs that have different causes', () => {
    expect(doubles.length).toBeGreaterThanOrEqual(10)
    for (const [one, other] of doubles)
      expect(faults[one].expected, `${one} and ${other}`).not.toBe(faults[other].expected)
  })

  it('are in docs/troubleshooting.md, each with the check that was named first', () => {
    const page = readFileSync(new URL('../docs/troubleshooting.md', import.meta.url), 'utf8')
    for (const { what, by, expected } of Object.values(faults))
      expect(page).toContain(`\n| ${what} | ${by} | ${expected} | `)
  })

  it('are measured against ten healthy set-ups or more', () => {
    expect(Object.keys(healthy).length).toBeGreaterThanOrEqual(10)
  })
})
