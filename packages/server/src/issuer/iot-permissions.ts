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

/** Who asks: the vending machine by its issuer, the handlers of events, the sweep, the operator. */
export type IotRole =
  | 'aws-iot'
  | 'aws-iot-own-ca'
  | 'aws-iot-jitr'
  | 'registered'
  | 'presence'
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
  ...on('cert/*', 'AttachPolicy', 'AttachThingPrincipal', 'DescribeCertificate'),
  ...withdrawing,
]
const endpoint = on('*', 'DescribeEndpoint')
const registering = on('*', 'RegisterCertificate', 'RegisterCertificateWithoutCA')

export const iotPermissions: Readonly<Record<IotRole, readonly IotPermission[]>> = {
  'aws-iot': [...endpoint, ...on('*', 'CreateCertificateFromCsr'), ...entering],
  'aws-iot-own-ca': [...endpoint, ...registering, ...entering],
  'aws-iot-jitr': [...endpoint, ...withdrawing],
  registered: entering,
  presence: withdrawing,
  sweep: [
    ...on('*', 'ListAttachedPolicies', 'ListCertificates'),
    ...registering,
    ...entering,
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
