/**
 * The Certvend agent for programs that embed it; the `certvend` command is the usual way in.
 *
 * @module
 */
export { type AgentOptions, runAgent } from './agent.ts'
export type { MqttSettings } from './config.ts'
export type { Outlook, Renew, Ways } from './due.ts'
export type { Enrollment } from './enrollment.ts'
export { type ConfigurationError, configurationError } from './failure.ts'
export { type Decision, decide, type Facts, type FailedAttempt, type Renewal } from './lifecycle.ts'
export { jsonLine, type Log, type LogEvent } from './log.ts'
export { readStatus, type StatusDocument, statusOf } from './status.ts'
