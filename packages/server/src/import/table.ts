/** A table as it is read: row by row, from pieces of text. */
import type { Fields } from './row.ts'

export interface SourceRow {
  /** 1 for the first row of the table, whatever stands before it. */
  readonly number: number
  readonly fields: Fields
}

/** Rejects with {@link isUnreadable} where the file cannot be read to its end, naming the place. */
export type Rows = AsyncIterable<SourceRow>
export type Chunks = AsyncIterable<string>

/** The file is not what it should be; the message says where, and repeats nothing of it. */
export const unreadable = (message: string, hint?: string): Error =>
  Object.assign(new Error(message), { isUnreadable: true, ...(hint !== undefined && { hint }) })

export const isUnreadable = (error: unknown): error is Error & { readonly hint?: string } =>
  error instanceof Error && (error as { isUnreadable?: true }).isUnreadable === true
