/** How a command fails: one line that says what is wrong, one that says what to do, and an exit code. */

/** 1: trying again may help. 2: usage or configuration. 3: a person must act. */
export type FailureCode = 1 | 2 | 3

export interface Failure extends Error {
  readonly exitCode: FailureCode
  readonly hint?: string
}

/** An error to throw; `message` starts in lower case and has no full stop. */
export const failure = (exitCode: FailureCode, message: string, hint?: string): Failure =>
  Object.assign(new Error(message), { exitCode, ...(hint !== undefined && { hint }) })

export const isFailure = (error: unknown): error is Failure =>
  error instanceof Error && typeof (error as Partial<Failure>).exitCode === 'number'
