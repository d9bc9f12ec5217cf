export { type Books, confirm, restoreDevice, wantedStatus, withdrawRefused } from './activation.ts'
export { type Clock, systemClock } from './clock.ts'
export type { EnrollmentOptions } from './enrollment.ts'
export type { FailureLimits } from './failures.ts'
export {
  createHandler,
  type Handler,
  type HandlerOptions,
  type RequestContext,
} from './handler.ts'
export { type Issuer, isIssuerBusy, issuerBusy } from './issuer/issuer.ts'
export { createLocalIssuer, type LocalIssuerOptions, openDeviceCa } from './issuer/local.ts'
export { type Listener, type ListenOptions, listen } from './listen.ts'
export { jsonLog, type Log, type LogEvent, silent } from './log.ts'
export type { Authority, ServerIdentity } from './pki.ts'
export { type JudgedRequest, type Judgement, judgeRequest } from './policy.ts'
export {
  type Costs,
  createRateGate,
  type RateGate,
  type RateGateOptions,
  type Rates,
  type Turn,
} from './rate-gate.ts'
export { openLibsqlRegistry } from './registry/libsql.ts'
export {
  type AddOutcome,
  type AuditEvent,
  type AuditName,
  type Certificate,
  type CertificateStatus,
  type Claim,
  type ClaimOutcome,
  type ClaimRefusal,
  type Device,
  type DeviceDescription,
  type DeviceState,
  deviceState,
  type Fleet,
  type Issued,
  isInForce,
  isRegistryBusy,
  type NewDevice,
  type Registry,
  type Reservation,
  type ReserveRequest,
  registryBusy,
  reservationMs,
  vendedElsewhere,
} from './registry/registry.ts'
export { openServerChain, type ServerChain } from './tls.ts'
export {
  createTokenJudge,
  generateToken,
  hashToken,
  type StoredToken,
  type TokenJudge,
} from './tokens.ts'
