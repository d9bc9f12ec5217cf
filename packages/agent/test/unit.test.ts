/** The systemd unit, judged by systemd itself. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { makeFolder } from './folder.ts'

const unit = fileURLToPath(new URL('../packaging/certvend.service', import.meta.url))
const text = fs.readFileSync(unit, 'utf8')
const without =
  spawnSync('systemd-analyze', ['--version']).status === 0 ? undefined : 'no systemd-analyze'

describe('certvend.service', () => {
  it('is exposed by 1.4 or less', (context) => {
    context.skip(without !== undefined, without)
    const judge = (threshold: number) =>
      spawnSync('systemd-analyze', ['security', '--offline=yes', `--threshold=${threshold}`, unit])
    expect(judge(14).status).toBe(0)
    expect(judge(10).status, 'a threshold can be missed').toBe(1)
  })

  it('holds no line that systemd does not know', (context) => {
    context.skip(without !== undefined, without)
    const verify = (content: string): string => {
      const file = makeFolder().write('certvend.service', content, 0o644)
      const { stderr } = spawnSync('systemd-analyze', ['verify', '--man=no', file], {
        encoding: 'utf8',
      })
      return stderr
    }
    const runnable = text.replaceAll('/usr/bin/certvend', '/bin/true')
    expect(verify(runnable)).not.toContain('certvend.service')
    expect(verify(runnable.replace('WatchdogSec', 'WatchdogSeconds'))).toContain('WatchdogSeconds')
  })

  it('starts what is not there for no token, keeps no core, and kills rather than dumps', () => {
    expect(text).toContain('\nSetCredential=claim-token:none\n')
    expect(text).toContain('\nLimitCORE=0\n')
    expect(text).toContain('\nWatchdogSignal=SIGKILL\n')
    expect(text).toContain('\nRestartPreventExitStatus=2 3\n')
  })

  it('lets Node run: every system call it needs is let through', (context) => {
    context.skip(without !== undefined, without)
    const pkey = execFileSync('systemd-analyze', ['syscall-filter', '@pkey'], { encoding: 'utf8' })
    expect(pkey).toContain('pkey_alloc')
    expect(text).toContain('\nSystemCallFilter=@system-service @pkey\n')
    expect(text).not.toContain('MemoryDenyWriteExecute=yes')
  })
})
