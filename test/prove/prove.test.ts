/** The crash proof, as `npm run prove` prints it. */

import fs from 'node:fs'
import { beforeAll, describe, expect, test } from 'vitest'
import { damages } from './damages.ts'
import { mistakes } from './mistakes.ts'
import { record } from './recording.ts'
import { scenarios } from './scenarios.ts'
import {
  mistakesTable,
  openingTable,
  readTable,
  statesTable,
  storeDocument,
  wearTable,
} from './tables.ts'
import { makeWorkspace, type Proof, proveAll } from './whole.ts'

let proof: Proof

beforeAll(async () => {
  proof = await proveAll()
}, 600_000)

describe('a crash of the credential store', () => {
  test.each(scenarios.map(({ name }, index) => [name, index] as const))(
    'during %s leaves what was there before the call or what is there after it',
    (name, index) => {
      const row = proof.rows[index]
      expect(row?.scenario).toBe(name)
      expect(row?.failures).toEqual([])
      for (const states of Object.values(row?.states ?? {})) expect(states).toBeGreaterThan(10)
    },
  )

  test(`during the mending of ${damages.length} kinds of damage leaves the same answer`, () => {
    expect(proof.rows.at(-1)?.failures).toEqual([])
  })

  test.each(mistakes.map(({ name }, index) => [name, index] as const))(
    'would be survived by nobody who made the mistake: %s',
    (name, index) => {
      expect(proof.bites[index]).toMatchObject({ mistake: name, caught: expect.anything() })
    },
  )
})

describe('docs/store.md (npm run prove -- --tables)', () => {
  const text = fs.readFileSync(storeDocument, 'utf8')

  test('counts the states that were tried', () => {
    expect(readTable(text, 'states')).toBe(statesTable(proof))
  })

  test('names the mistakes that are caught, and what opening shows of each damage', () => {
    expect(readTable(text, 'mistakes')).toBe(mistakesTable())
    expect(readTable(text, 'opening')).toBe(openingTable())
  })

  test('counts what is written, and that an idle day writes nothing', async () => {
    const workspace = makeWorkspace()
    const wear = await wearTable(workspace)
    expect(readTable(text, 'wear')).toBe(wear)
    expect(wear).toMatch(/idle day after \| 0 \| 0 \| 0 \| 0 \|/)
    fs.rmSync(workspace, { recursive: true })
  })
})

describe('the recorder', () => {
  test('fails on a method of node:fs that it does not know', () => {
    const root = makeWorkspace()
    expect(() => record(root, () => fs.utimesSync(root, 0, 0))).toThrow(
      /fs\.utimesSync is not known/,
    )
    expect(() => record(root, () => fs.promises)).toThrow(/fs\.promises is not known/)
    fs.rmdirSync(root)
  })

  test('fails even when the code under test swallows that', () => {
    const root = makeWorkspace()
    const swallowing = (): void => {
      try {
        fs.copyFileSync('/etc/hostname', `${root}/copy`)
      } catch {}
    }
    expect(() => record(root, swallowing)).toThrow(/fs\.copyFileSync/)
    fs.rmdirSync(root)
  })

  test('leaves node:fs as it was', () => {
    const before = { ...fs }
    record('/', () => {})
    expect({ ...fs }).toEqual(before)
  })
})
