/**
 * Loaded before a measured program: at its end, writes what the process used to descriptor 3.
 *
 * The peak is VmHWM, not `maxRSS`: that one still counts the parent's memory from before exec.
 */
import { readFileSync, writeSync } from 'node:fs'

function peakKiB(): number {
  try {
    const text = readFileSync('/proc/self/status', 'utf8')
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(text)?.[1])
  } catch {
    return process.resourceUsage().maxRSS
  }
}

process.once('exit', () => {
  const { user, system } = process.cpuUsage()
  writeSync(3, JSON.stringify({ cpuMs: (user + system) / 1000, peakKiB: peakKiB() }))
})
