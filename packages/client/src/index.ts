/**
 * The device side of Certvend: first-boot enrollment, credential custody, MQTT with mutual TLS.
 *
 * @module
 */
export { type Lifetime, renewalDue } from './certificate.ts'
export { type Claim, createClaim } from './claim.ts'
export { type Clock, earliestPlausible, monotonicMs, systemClock } from './clock.ts'
export {
  type Credential,
  type CredentialParts,
  createCredential,
  type Issued,
  type Pending,
  type RequestRecord,
} from './credential.ts'
export {
  chooseDialect,
  type DialectName,
  type DialectOptions,
  dialectNames,
} from './dialects/choice.ts'
export { defaultStateDirectory, judgeOwnDirectory } from './directory.ts'
export { createEndpoint } from './endpoint.ts'
export {
  type EnrollEvent,
  type EnrollOptions,
  type EnsureOptions,
  enroll,
  ensureCredential,
  fetchCaCertificates,
} from './enroll.ts'
export { type Erased, eraseHere, eraseStore } from './erase.ts'
export {
  CertvendError,
  type ErrorCode,
  errorCodes,
  errorDocs,
  isCertvendError,
  type Remedy,
} from './errors.ts'
export {
  type FileSystemReport,
  type GenerationReport,
  inspectStore,
  type StoreReport,
} from './inspection.ts'
export {
  type FileKey,
  isPkcs11Key,
  type KeyAlgorithm,
  keyAlgorithms,
  type Pkcs11Key,
  type PrivateKey,
  type StoredKey,
} from './key.ts'
export { openPkcs11Key } from './pkcs11.ts'
export { type HttpProxy, type ProxyOptions, proxyFor } from './proxy.ts'
export { reenroll, renewalObstacle, retire } from './reenroll.ts'
export type { Backoff } from './retry.ts'
export { saltedToken, type TokenFormula, tokenFormulas } from './salted-token.ts'
export type { Send, SendLimits, SendRequest, SendResponse } from './send.ts'
export {
  connect,
  type Message,
  type PublishOptions,
  type Qos,
  type Session,
  type SessionEnd,
  type SessionOptions,
  type Transport,
  type Will,
} from './session.ts'
export { type CredentialSource, type StayOptions, stayConnected } from './stay.ts'
export { type CredentialStore, openCredentialStore, type StoreOptions } from './store.ts'
export { amazonTrustAnchors, parseTrustAnchors, type TrustAnchors } from './trust.ts'
export { readUntrustedStore } from './untrusted.ts'
export { createVendingServer, type VendedBy, type VendingServer } from './vending-server.ts'
export type { CaCertificates, Endpoint } from './wire.ts'
