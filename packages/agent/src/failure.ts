/**
 * The one edge where an error becomes words and an exit code.
 *
 * Exit codes: 0 done · 1 failed, trying again may help · 2 usage or configuration · 3 a person must act.
 */
import { isCertvendError, type Remedy } from '@certvend/client'

export type ExitCode = 0 | 1 | 2 | 3

export interface Failure {
  readonly exitCode: Exclude<ExitCode, 0>
  /** One line: lower case, no final period, no secret. */
  readonly message: string
  /** What a person does next. */
  readonly hint?: string
  /** Where it is explained at length. */
  readonly docs?: string
}

/** Something on this machine that only its owner can set right: a flag, a file, a setting. */
export interface ConfigurationError extends Error {
  readonly code: 'ERR_CONFIGURATION'
  readonly hint?: string
}

/** @param hint what to do, with the command or the line where there is one */
export function configurationError(message: string, hint?: string): ConfigurationError {
  return Object.assign(new Error(message), {
    code: 'ERR_CONFIGURATION' as const,
    ...(hint === undefined ? {} : { hint }),
  })
}

export const isConfigurationError = (error: unknown): error is ConfigurationError =>
  error instanceof Error && 'code' in error && error.code === 'ERR_CONFIGURATION'

const exitCodes: Readonly<Record<Remedy, Failure['exitCode']>> = {
  retry: 1,
  enroll: 3,
  operator: 3,
}

/** What to say of `error`, and how to exit. */
export function toFailure(error: unknown): Failure {
  if (isConfigurationError(error)) return describe(2, error.message, error.hint)
  if (isCertvendError(error))
    return {
      ...describe(exitCodes[error.remedy], `${error.message} (${error.code})`, error.hint),
      docs: error.docs,
    }
  const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
  return describe(1, text, 'this is a defect of certvend; please report the lines above')
}

const describe = (exitCode: Failure['exitCode'], message: string, hint?: string): Failure => ({
  exitCode,
  message,
  ...(hint === undefined ? {} : { hint }),
})
