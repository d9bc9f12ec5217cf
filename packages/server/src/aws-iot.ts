/**
 * AWS IoT as the issuer: `@certvend/server/aws-iot`. A subpath of its own, because it loads the AWS SDK.
 *
 * `openAwsIssuer` is all that a vending machine needs; the rest is for functions that AWS calls by events
 * and schedules, and for whoever writes a role.
 */
export {
  type Books,
  confirm,
  restoreDevice,
  wantedStatus,
  withdrawRefused,
} from './activation.ts'
export { type AwsIotIssuerOptions, createAwsIotIssuer } from './issuer/aws-iot.ts'
export {
  createOwnCaIssuer,
  type OwnCaIssuerOptions,
  type Registration,
} from './issuer/aws-iot-own-ca.ts'
export { openCa } from './issuer/ca-key.ts'
export {
  type CaMode,
  type RegisterCaOptions,
  type RegisteredCa,
  registerCa,
} from './issuer/iot-ca.ts'
export { type Iot, type IotOptions, openIot } from './issuer/iot-client.ts'
export {
  amazonTrustAnchors,
  createIotEndpoint,
  type EndpointSettings,
} from './issuer/iot-endpoint.ts'
export {
  type EventTools,
  handlePresence,
  handleRegistered,
  type RegisteredOutcome,
} from './issuer/iot-events.ts'
export { type IotPermission, type IotRole, iotPermissions } from './issuer/iot-permissions.ts'
export { defaultPolicyName, type Place, sharedPolicy } from './issuer/iot-policy.ts'
export { iotRates, shareOf } from './issuer/iot-quotas.ts'
export {
  type AwsIssuer,
  type AwsIssuerName,
  type AwsSettings,
  openAwsIssuer,
} from './issuer/open-aws.ts'
export { type SweepOptions, type SweepReport, type SweepStep, sweep } from './sweep.ts'
