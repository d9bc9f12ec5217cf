/** The scheduled function: makes the certificates that AWS IoT holds agree with the registry. */
import { minute } from '../clock.ts'
import { sweep } from '../sweep.ts'
import { eventTools, functionLog, openParts } from './parts.ts'
import { start } from './start.ts'

/** Lambda ends it after fifteen minutes; what is left is for the next time. */
const timeoutMs = 14 * minute

export const handler = await start(async () => {
  const parts = openParts()
  const { iot, gate, log } = parts
  const tools = { ...eventTools(parts), iot, gate }
  return async () => {
    const report = await sweep(tools, {
      signal: AbortSignal.timeout(timeoutMs),
      onStep: ({ action, why, ...about }) =>
        log({ event: `sweep-${action}`, ...about, reason: why }),
    })
    const counts = Object.entries(report).map(([name, count]) => `${name} ${count}`)
    log({ event: 'swept', reason: counts.join(', ') })
    return report
  }
}, functionLog)
