/** The Prometheus file: sound, whole at any moment, and written only when something in it differs. */
import fs from 'node:fs'
import { type Credential, renewalDue } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import type { LiveDocument } from '../src/live.ts'
import { keepMetrics, metricsText } from '../src/metrics.ts'
import { makeFolder } from './folder.ts'

const live: LiveDocument = {
  version: '0.1.0',
  connection: 'online',
  since: '2027-03-01T12:00:00.000Z',
  sessions: 3,
  acknowledged: 3,
  failedInARow: 0,
}
const credential = {
  deviceSerial: 'GW"1\\',
  thingName: 'GW-1',
  certificateId: '0'.repeat(64),
  notBefore: new Date('2027-03-01T11:00:00Z'),
  issuedAt: new Date('2027-03-01T12:00:00Z'),
  notAfter: new Date('2028-03-01T12:00:00Z'),
} as Credential

describe('the metrics', () => {
  it('are in the text format of Prometheus', () => {
    const text = metricsText(live, credential)
    for (const line of text.trimEnd().split('\n'))
      expect(line).toMatch(
        /^(# (HELP|TYPE) certvend_[a-z_]+ .+|certvend_[a-z_]+(\{([a-z_]+="([^"\\\n]|\\["\\n])*",?)+\})? [0-9.]+)$/,
      )
    expect(text).toContain('\ncertvend_online 1\n')
    expect(text).toContain('\ncertvend_certificate_not_after_timestamp_seconds 1835524800\n')
    expect(text).toContain(
      `\ncertvend_certificate_renewal_due_timestamp_seconds ${Math.round(renewalDue(credential).getTime() / 1000)}\n`,
    )
    expect(text).toContain('\ncertvend_renewal_failed_attempts 0\n')
    expect(text).toContain('device_serial="GW\\"1\\\\"')
    expect(text.endsWith('\n')).toBe(true)
  })

  it('name what is wrong, and no certificate where there is none', () => {
    const problem = { code: 'ERR_NETWORK', remedy: 'retry', message: 'm', hint: 'h' }
    const text = metricsText({ ...live, connection: 'waiting', problem }, undefined)
    expect(text).toContain('\ncertvend_online 0\n')
    expect(text).toContain('problem="ERR_NETWORK"')
    expect(text).not.toContain('not_after')
  })

  it('are written only when they differ, replaced as a whole, and readable by everybody', () => {
    const folder = makeFolder()
    const failures: Error[] = []
    const keep = keepMetrics(folder.at('metrics.prom'), (error) => failures.push(error))
    const inode = () => fs.statSync(folder.at('metrics.prom')).ino
    keep('one\n')
    const first = inode()
    keep('one\n')
    expect(inode()).toBe(first)
    keep('two\n')
    expect(inode()).not.toBe(first)
    expect(fs.statSync(folder.at('metrics.prom')).mode & 0o777).toBe(0o644)
    expect(folder.list()).toEqual(['metrics.prom'])
    expect(failures).toEqual([])
  })

  it('that cannot be written are told once, and come when they can', () => {
    const folder = makeFolder()
    const failures: Error[] = []
    const keep = keepMetrics(folder.at('run/metrics.prom'), (error) => failures.push(error))
    keep('one\n')
    keep('two\n')
    expect(failures).toHaveLength(1)
    fs.mkdirSync(folder.at('run'))
    keep('two\n')
    expect(fs.readFileSync(folder.at('run/metrics.prom'), 'utf8')).toBe('two\n')
  })
})
