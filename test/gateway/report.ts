/** What a rehearsal says: one line per step, and at its end the line that CI counts. */
export interface Report {
  /** Runs a step and says how it went; what it rejects with is passed on. */
  step(title: string, action: () => Promise<void>): Promise<void>
  /** @throws Error with these words if the claim is false */
  holds(claim: boolean, what: string): void
  say(line: string): void
}

export interface OpenReport extends Report {
  readonly failed: number
  skip(title: string, reason: string): void
  /** Says `NAME: N passed, N failed, N skipped`, and sets the exit code. */
  close(): void
}

export function openReport(name: string): OpenReport {
  const counts = { passed: 0, failed: 0, skipped: 0 }
  const say = (line: string): void => void process.stdout.write(`${line}\n`)
  return {
    say,
    get failed() {
      return counts.failed
    },
    async step(title, action) {
      const began = performance.now()
      try {
        await action()
        counts.passed++
        say(`ok      ${title} (${((performance.now() - began) / 1000).toFixed(1)} s)`)
      } catch (error) {
        counts.failed++
        say(`FAILED  ${title}\n${String(error).replace(/^/gm, '        ')}`)
        throw error
      }
    },
    holds(claim, what) {
      if (!claim) throw new Error(`this does not hold: ${what}`)
    },
    skip(title, reason) {
      counts.skipped++
      say(`skipped ${title}: ${reason}`)
    },
    close() {
      const { passed, failed, skipped } = counts
      say(`${name}: ${passed} passed, ${failed} failed, ${skipped} skipped`)
      process.exitCode = failed === 0 ? 0 : 1
    },
  }
}
