/**
 * The one policy that all devices share: each may do what its own thing may, by AWS IoT's thing policy
 * variables, and nothing else. Never `iot:*`, which would let any device speak as any other and take every
 * role alias of the account.
 *
 * @see https://docs.aws.amazon.com/iot/latest/developerguide/thing-policy-variables.html
 */

/** Where in AWS: what stands in an ARN. In a template, `${AWS::Region}` and the like. */
export interface Place {
  /** `aws`, `aws-cn`, `aws-us-gov`. */
  readonly partition: string
  readonly region: string
  readonly account: string
}

/** Of the policy that all devices share, where none is named. */
export const defaultPolicyName = 'certvend-device'

/** @throws TypeError if the text is no ARN */
export function placeOf(arn: string): Place {
  const [scheme, partition, , region, account] = arn.split(':')
  if (scheme !== 'arn' || !partition || !region || !account) throw new TypeError('not an ARN')
  return { partition, region, account }
}

// biome-ignore lint/suspicious/noTemplateCurlyInString: AWS IoT fills it in, when a device connects
const thing = '${iot:Connection.Thing.ThingName}'

/**
 * The document, as an object.
 *
 * A device connects under its thing's name and only while its certificate is attached to that thing. It
 * publishes and subscribes below `certvend/<thing>/`, and uses its own shadows and jobs.
 *
 * @param roleAlias a role alias whose credentials devices may fetch; none by default
 */
export function sharedPolicy(place: Place, roleAlias?: string): object {
  const arn = (resource: string) =>
    `arn:${place.partition}:iot:${place.region}:${place.account}:${resource}`
  const own = [`certvend/${thing}/*`, `$aws/things/${thing}/*`]
  const allow = (actions: string | readonly string[], resources: readonly string[]) => ({
    Effect: 'Allow',
    Action: actions,
    Resource: resources,
  })
  return {
    Version: '2012-10-17',
    Statement: [
      {
        ...allow('iot:Connect', [arn(`client/${thing}`)]),
        Condition: { Bool: { 'iot:Connection.Thing.IsAttached': 'true' } },
      },
      allow(
        ['iot:Publish', 'iot:Receive'],
        own.map((topic) => arn(`topic/${topic}`)),
      ),
      allow('iot:RetainPublish', [arn(`topic/certvend/${thing}/*`)]),
      allow(
        'iot:Subscribe',
        own.map((topic) => arn(`topicfilter/${topic}`)),
      ),
      ...(roleAlias === undefined
        ? []
        : [allow('iot:AssumeRoleWithCertificate', [arn(`rolealias/${roleAlias}`)])]),
    ],
  }
}
