import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const packaging = fileURLToPath(new URL('../packaging/', import.meta.url))
const units = readdirSync(packaging).filter((name) => /\.(service|timer)$/.test(name))
const analyze = 'systemd-analyze'
const isThere = spawnSync(analyze, ['--version']).status === 0

describe.skipIf(!isThere)('the units of certvend-server', () => {
  it('are there: the server, and a timer for the sweep', () => {
    expect(units.sort()).toEqual([
      'certvend-server-sweep.service',
      'certvend-server-sweep.timer',
      'certvend-server.service',
    ])
  })

  it.each(units)('%s is understood by systemd, without a word', (unit) => {
    const directory = mkdtempSync(join(tmpdir(), 'certvend-unit-'))
    try {
      for (const name of units) {
        // Only the program is not installed where this runs.
        const text = readFileSync(join(packaging, name), 'utf8')
        const copy = text.replace('ExecStart=certvend-server', 'ExecStart=/bin/true')
        writeFileSync(join(directory, name), copy)
      }
      const { status, stderr } = spawnSync(analyze, ['verify', join(directory, unit)], {
        encoding: 'utf8',
      })
      expect([status, stderr]).toEqual([0, ''])
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  it.each(units.filter((name) => name.endsWith('.service')))(
    '%s is exposed to little, by systemd’s own measure',
    (unit) => {
      const words = ['security', '--offline=true', '--threshold=15', '--no-pager']
      const run = () =>
        execFileSync(analyze, [...words, join(packaging, unit)], { stdio: 'ignore' })
      expect(run).not.toThrow()
    },
  )
})
