/** What a check is, and what it comes to. */
import type { Evidence } from './evidence.ts'

/** What the person does next: wait, mend a setting, or act elsewhere. */
export type Care = 'wait' | 'configure' | 'act'

export interface Finding {
  /** What is there: one line, lower case, no secret. */
  readonly found: string
  /** What should be there. */
  readonly expected: string
  /** The next step, with the command where there is one. */
  readonly mend: string
  readonly care: Care
}

/** `fine`, or what is wrong, or why it cannot be told. */
export type Verdict = 'fine' | Finding | { readonly unknown: string }

export interface Check {
  /** Stable; an anchor in docs/troubleshooting.md. */
  readonly name: string
  /** What the person sees, as a heading: "Not online, and the clock is wrong". */
  readonly symptom: string
  /** What is looked at, in one sentence. */
  readonly looks: string
  /** What to do, for the page; the finding has the command for this device. */
  readonly advice: string
  /** Checks whose finding makes this one pointless: what they found is its cause. */
  readonly after?: readonly string[]
  judge(evidence: Evidence): Verdict
}

export const isFinding = (verdict: Verdict): verdict is Finding =>
  typeof verdict === 'object' && 'found' in verdict

export const unknown = (why: string): Verdict => ({ unknown: why })
