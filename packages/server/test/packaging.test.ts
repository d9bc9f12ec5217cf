import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const unit = fileURLToPath(new URL('../packaging/certvend-server.service', import.meta.url))
const analyze = 'systemd-analyze'
const isThere = spawnSync(analyze, ['--version']).status === 0

describe.skipIf(!isThere)('the unit certvend-server.service', () => {
  it('is understood by systemd, without a word', () => {
    const directory = mkdtempSync(join(tmpdir(), 'certvend-unit-'))
    try {
      // Only the program is not installed where this runs.
      const text = readFileSync(unit, 'utf8').replace(
        'ExecStart=certvend-server',
        'ExecStart=/bin/true',
      )
      const copy = join(directory, 'certvend-server.service')
      writeFileSync(copy, text)
      const { status, stderr } = spawnSync(analyze, ['verify', copy], { encoding: 'utf8' })
      expect([status, stderr]).toEqual([0, ''])
    } finally {
      rmSync(directory, { recursive: true })
    }
  })

  it('is exposed to little, by systemd’s own measure', () => {
    const words = ['security', '--offline=true', '--threshold=15', '--no-pager', unit]
    expect(() => execFileSync(analyze, words, { stdio: 'ignore' })).not.toThrow()
  })
})
