/** What a process of life.ts tells on its standard output. */
import type { StepName } from './scenarios.ts'

export type Line =
  | { readonly at: 'opened' }
  /** The end, with the store's files that are still open. */
  | { readonly at: 'closed'; readonly open: readonly string[] }
  | { readonly at: 'calling'; readonly step: StepName }
  | {
      readonly at: 'returned'
      readonly step: StepName
      /** Public key of what is pending or current, PEM. */
      readonly publicKeys: readonly string[]
    }
  | {
      readonly at: 'failed'
      readonly step: StepName | 'open'
      readonly code: string
      readonly hint: string
      readonly message: string
    }

/** What is asked of the file system between these two is the store's doing. */
export const markers = { begin: '/certvend-prove-begin', end: '/certvend-prove-end' } as const
