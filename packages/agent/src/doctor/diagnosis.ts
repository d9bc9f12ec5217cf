/** Evidence → diagnosis: pure. The first finding in the table's order is the most likely cause. */
import type { ExitCode } from '../failure.ts'
import type { Evidence } from './evidence.ts'
import { type Care, type Check, type Finding, isFinding } from './finding.ts'
import { checks } from './table.ts'

export interface CheckDocument {
  readonly check: string
  /** `skipped`: what another check found is the reason, named in `because`. */
  readonly outcome: 'fine' | 'wrong' | 'unknown' | 'skipped'
  readonly because?: string
}

export interface FindingDocument extends Finding {
  readonly check: string
  /** Where the page about it is, relative to the documentation's root. */
  readonly docs: string
}

/** What `certvend doctor --json` prints. */
export interface Diagnosis {
  readonly version: 1
  readonly healthy: boolean
  /** The check that found the most likely cause. */
  readonly cause?: string
  /** The most likely cause first. */
  readonly findings: readonly FindingDocument[]
  readonly checks: readonly CheckDocument[]
}

export const docsOf = (check: string): string => `docs/troubleshooting.md#${check}`

export function diagnose(evidence: Evidence, table: readonly Check[] = checks): Diagnosis {
  const findings: FindingDocument[] = []
  const outcomes: CheckDocument[] = []
  for (const check of table) {
    const { name } = check
    const cause = findings.find((finding) => check.after?.includes(finding.check))
    if (cause) {
      outcomes.push({ check: name, outcome: 'skipped', because: cause.check })
      continue
    }
    const verdict = check.judge(evidence)
    if (verdict === 'fine') outcomes.push({ check: name, outcome: 'fine' })
    else if (isFinding(verdict)) {
      findings.push({ check: name, ...verdict, docs: docsOf(name) })
      outcomes.push({ check: name, outcome: 'wrong' })
    } else outcomes.push({ check: name, outcome: 'unknown', because: verdict.unknown })
  }
  const [cause] = findings
  return {
    version: 1,
    healthy: findings.length === 0,
    ...(cause ? { cause: cause.check } : {}),
    findings,
    checks: outcomes,
  }
}

const codes: Readonly<Record<Care, Exclude<ExitCode, 0>>> = { wait: 1, configure: 2, act: 3 }

export const exitCodeFor = (care: Care): Exclude<ExitCode, 0> => codes[care]

/** By the most likely cause: 0 healthy, 1 passes by itself, 2 a setting, 3 a person must act. */
export const exitCodeOf = ({ findings: [cause] }: Diagnosis): ExitCode =>
  cause ? codes[cause.care] : 0
