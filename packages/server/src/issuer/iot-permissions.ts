/**
 * What each part of this server asks AWS IoT for, and on which resources: what a role must allow, and no
 * more. The fault sweep compares it with the calls that are really made.
 *
 * @see https://docs.aws.amazon.com/iot/latest/developerguide/security_iam_service-with-iam.html
 */

/** A resource's ARN after `arn:<partition>:iot:<region>:<account>:`; `*` where AWS knows no narrower one. */
export type IotResource = 'cert/*' | 'thing/*' | 'thingtype/*' | 'thinggroup/*' | 'cacert/*' | '*'

export interface IotPermission {
  /** Without `iot:`. */
  readonly action: string
  readonly resources: readonly IotResource[]
}

/** Who asks: the vending machine by its issuer, the handlers of events, the operator, the sweep. */
export type IotRole =
  | 'aws-iot'
  | 'aws-iot-own-ca'
  | 'aws-iot-own-ca-unregistered'
  | 'aws-iot-jitr'
  | 'registered'
  | 'presence'
  /** `device disable`, `enable`, `rearm --revoke`, `remove`. */
  | 'operator'
  | 'sweep'
  | 'ca-register'
  /** Beside a role that vends, where the policy of a row or of the configuration is not there yet. */
  | 'makes-policies'
  /** Beside a role that vends, where devices join a thing group. */
  | 'thing-group'

const on = (resource: IotResource, ...actions: string[]): IotPermission[] =>
  actions.map((action) => ({ action, resources: [resource] }))

const withdrawing = on('cert/*', 'UpdateCertificate')
const entering = [
  ...on('thing/*', 'CreateThing', 'DescribeThing', 'UpdateThing'),
  ...on('thingtype/*', 'CreateThingType'),
  ...on('cert/*', 'AttachPolicy', 'AttachThingPrincipal'),
  ...withdrawing,
]
/** Of certificates that this process has not made itself, AWS is asked where they are. */
const enteringOthers = [...entering, ...on('cert/*', 'DescribeCertificate')]
const endpoint = on('*', 'DescribeEndpoint')

/** By who asks. */
export const iotPermissions: Readonly<Record<IotRole, readonly IotPermission[]>> = {
  'aws-iot': [...endpoint, ...on('*', 'CreateCertificateFromCsr'), ...entering],
  'aws-iot-own-ca': [...endpoint, ...on('*', 'RegisterCertificate'), ...entering],
  'aws-iot-own-ca-unregistered': [
    ...endpoint,
    ...on('*', 'RegisterCertificateWithoutCA'),
    ...entering,
  ],
  'aws-iot-jitr': [...endpoint, ...withdrawing],
  registered: enteringOthers,
  presence: withdrawing,
  operator: enteringOthers,
  sweep: [
    ...on('*', 'ListAttachedPolicies', 'ListCertificates'),
    ...enteringOthers,
    ...on(
      'cert/*',
      'DeleteCertificate',
      'DetachPolicy',
      'DetachThingPrincipal',
      'ListPrincipalThings',
    ),
  ],
  'ca-register': [
    ...on('*', 'GetRegistrationCode', 'RegisterCACertificate'),
    ...on('cacert/*', 'DescribeCACertificate', 'UpdateCACertificate'),
  ],
  'makes-policies': on('*', 'CreatePolicy'),
  'thing-group': [{ action: 'AddThingToThingGroup', resources: ['thinggroup/*', 'thing/*'] }],
}
