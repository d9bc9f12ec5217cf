/** What CloudFormation is given: judged here as data; cfn-lint judges it by AWS's schemas (`npm run deploy:check`). */
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { parse, type ScalarTag } from 'yaml'
import { type IotRole, iotPermissions } from '../src/issuer/iot-permissions.ts'

const here = path.resolve(import.meta.dirname, '..')
const text = fs.readFileSync(path.join(here, 'template.yaml'), 'utf8')

/** CloudFormation's short forms (`!Ref x`) in the long one (`{ Ref: x }`). */
const shortForms: ScalarTag[] = [
  'Ref',
  'GetAtt',
  'Sub',
  'If',
  'Not',
  'Equals',
  'And',
  'Condition',
  'Join',
].flatMap((name) => {
  const key = name === 'Ref' || name === 'Condition' ? name : `Fn::${name}`
  const tag = (collection?: 'seq' | 'map') => ({
    tag: `!${name}`,
    ...(collection && { collection }),
    resolve: (value: unknown) => ({
      [key]: collection ? (value as { toJSON(): unknown }).toJSON() : value,
    }),
  })
  return [tag(), tag('seq'), tag('map')] as unknown as ScalarTag[]
})

type Json = null | string | number | boolean | readonly Json[] | { readonly [name: string]: Json }
type Fields = Readonly<Record<string, Json>>
interface Resource {
  readonly Type: string
  readonly Condition?: string
  readonly DeletionPolicy?: string
  readonly UpdateReplacePolicy?: string
  readonly Properties: Fields
}

const template = parse(text, { customTags: shortForms }) as {
  readonly Parameters: Readonly<Record<string, Fields>>
  readonly Conditions: Fields
  readonly Globals: { readonly Function: Fields }
  readonly Resources: Readonly<Record<string, Resource>>
  readonly Outputs: Readonly<Record<string, Fields>>
}
const resources = Object.entries(template.Resources)
const ofType = (type: string) => resources.filter(([, { Type }]) => Type === type)
/** The properties of the only resource of its type. */
function only(type: string): Fields {
  const found = ofType(type)
  expect(found.length).toBe(1)
  return found[0]![1].Properties
}

/** Every value below `json`, itself included. */
function* below(json: Json | undefined): Generator<Json> {
  if (json === undefined) return
  yield json
  if (typeof json === 'object' && json !== null)
    for (const value of Object.values(json)) yield* below(value as Json)
}

const isFields = (json: Json | undefined): json is Fields =>
  typeof json === 'object' && json !== null && !Array.isArray(json)

/** Statements of roles and of the policy that they share: who may do what to what. */
const statements = [...ofType('AWS::IAM::Role'), ...ofType('AWS::IAM::ManagedPolicy')].flatMap(
  ([role, { Properties }]) =>
    [...below(Properties as unknown as Json)]
      .filter(isFields)
      .filter((fields) => 'Action' in fields && 'Resource' in fields)
      .map(({ Action, Resource }) => ({
        role,
        actions: [Action].flat() as string[],
        resource: Resource,
      })),
)

/** What a role is granted on AWS IoT always, and under one condition: `iot:Action on resource`. */
function iotGrants(role: string, condition?: string): string[] {
  const { Policies } = template.Resources[role]!.Properties
  const policies = (Policies as readonly Fields[]).flatMap((policy) => {
    const choice = policy['Fn::If'] as readonly Fields[] | undefined
    if (!choice) return [policy]
    return (choice[0] as unknown) === condition ? [choice[1]!] : []
  })
  const granted = policies
    .flatMap((policy) => [...below(policy)])
    .filter(isFields)
    .filter((fields) => 'Action' in fields)
    .flatMap(({ Action, Resource }) =>
      ([Action].flat() as string[]).map((action) => {
        const arn = isFields(Resource) ? String(Resource['Fn::Sub']) : String(Resource)
        return `${action} on ${arn.split(':').at(-1)}`
      }),
    )
  return [...new Set(granted.filter((grant) => grant.startsWith('iot:')))].sort()
}

/** AWS's service authorization reference names no resource type for these. */
const withoutResource = new Set([
  'iot:CreateCertificateFromCsr',
  'iot:RegisterCertificateWithoutCA',
  'iot:RegisterCertificate',
  'iot:DescribeEndpoint',
  'iot:ListAttachedPolicies',
  'iot:ListCertificates',
  'iot:ListCertificatesByCA',
])

describe('permissions', () => {
  it('name each action, without a wildcard', () => {
    expect(statements.length).toBeGreaterThan(10)
    for (const { role, actions } of statements)
      for (const action of actions)
        expect({ role, action }).toEqual({
          role,
          action: expect.stringMatching(/^[a-z]+:[A-Z]\w+$/),
        })
  })

  it('are for named resources wherever AWS knows any', () => {
    for (const { role, actions, resource } of statements)
      for (const action of actions)
        if (!withoutResource.has(action))
          expect({ role, action, resource }).not.toMatchObject({ resource: '*' })
  })

  it.each([
    ['Vend', 'AwsIotSigns', 'aws-iot'],
    ['Vend', 'WeRegister', 'aws-iot-own-ca-unregistered'],
    ['Vend', 'DevicesRegister', 'aws-iot-jitr'],
    ['Confirm', undefined, 'presence'],
    ['Activate', undefined, 'registered'],
    ['Sweep', undefined, 'sweep'],
  ] as const)('of %s (%s) are what the code of %s asks AWS IoT for', (name, condition, role) => {
    const needed = iotPermissions[role satisfies IotRole].flatMap(({ action, resources: on }) =>
      on.map((resource) => `iot:${action} on ${resource}`),
    )
    expect(iotGrants(`${name}Role`, condition)).toEqual([...new Set(needed)].sort())
  })

  it('let each function write its own log and nobody else’s', () => {
    for (const [name, { Properties }] of ofType('AWS::Serverless::Function')) {
      const group = (Properties.LoggingConfig as Fields).LogGroup as { Ref: string }
      const { 'Fn::GetAtt': role } = Properties.Role as { 'Fn::GetAtt': string }
      const logs = statements.filter(
        (statement) =>
          `${statement.role}.Arn` === role &&
          statement.actions.some((action) => action.startsWith('logs:')),
      )
      expect({ name, logs: logs.map(({ resource }) => resource) }).toEqual({
        name,
        logs: [{ 'Fn::GetAtt': `${group.Ref}.Arn` }],
      })
    }
  })

  it('hold every device to its own name', () => {
    const { PolicyDocument } = only('AWS::IoT::Policy')
    const allowed = [...below(PolicyDocument)]
      .filter(isFields)
      .filter((fields) => 'Action' in fields)
    expect(allowed.length).toBe(3)
    for (const { Action, Resource } of allowed) {
      expect([Action].flat().join()).not.toContain('*')
      for (const resource of [Resource].flat() as Fields[])
        expect(resource['Fn::Sub']).toMatch(/\/\$\{!iot:Connection\.Thing\.ThingName\}(\/\*)?$/)
    }
    expect(allowed[0]).toMatchObject({
      Action: 'iot:Connect',
      Condition: { Bool: { 'iot:Connection.Thing.IsAttached': 'true' } },
    })
  })
})

describe('what must not be lost', () => {
  it.each(ofType('AWS::DynamoDB::Table'))(
    '%s outlives the stack, and every day of the last month',
    (_, table) => {
      expect(table).toMatchObject({ DeletionPolicy: 'Retain', UpdateReplacePolicy: 'Retain' })
      expect(table.Properties).toMatchObject({
        BillingMode: 'PAY_PER_REQUEST',
        PointInTimeRecoverySpecification: { PointInTimeRecoveryEnabled: true },
        SSESpecification: { SSEEnabled: true },
        DeletionProtectionEnabled: true,
      })
      expect(table.Properties).not.toHaveProperty('TableName')
    },
  )
})

describe('what must not be told', () => {
  it('the access log has neither path nor query nor header', () => {
    const stage = only('AWS::ApiGatewayV2::Stage')
    const format = JSON.parse((stage.AccessLogSettings as { Format: string }).Format)
    expect(Object.keys(format).length).toBeGreaterThan(4)
    for (const value of Object.values(format))
      expect(value).toMatch(
        /^\$context\.(requestTime|requestId|identity\.sourceIp|httpMethod|status|responseLatency|error\.message|integrationErrorMessage)$/,
      )
  })

  it('no parameter is a secret, so none is in the environment of a function', () => {
    for (const [name, parameter] of Object.entries(template.Parameters)) {
      expect(parameter).not.toHaveProperty('NoEcho')
      expect(name).not.toMatch(/token$|password|privatekey/i)
    }
  })

  it('every log ends some day', () => {
    expect(ofType('AWS::Logs::LogGroup').length).toBeGreaterThan(3)
    for (const [, { Properties }] of ofType('AWS::Logs::LogGroup'))
      expect(Properties.RetentionInDays).toEqual({ Ref: 'LogRetentionDays' })
  })
})

describe('the template', () => {
  it('deploys without an answer to any question', () => {
    for (const [name, parameter] of Object.entries(template.Parameters))
      expect({ name, has: 'Default' in parameter && 'Description' in parameter }).toEqual({
        name,
        has: true,
      })
  })

  it('refers to nothing that is not there', () => {
    const names = new Set([...Object.keys(template.Resources), ...Object.keys(template.Parameters)])
    const referred = [...below(template as unknown as Json)].filter(isFields).flatMap((fields) => {
      const { Ref, Condition, 'Fn::GetAtt': attribute, 'Fn::If': choice, 'Fn::Sub': sub } = fields
      const [format, own] = [sub].flat() as [string | undefined, Fields | undefined]
      return [
        Ref,
        typeof attribute === 'string' ? attribute.split('.')[0] : undefined,
        typeof Condition === 'string' ? `condition ${Condition}` : undefined,
        Array.isArray(choice) ? `condition ${choice[0]}` : undefined,
        ...[...(format ?? '').matchAll(/\$\{([A-Za-z]+)[.}]/g)]
          .map(([, name]) => name)
          .filter((name) => !own || !(name! in own)),
      ].filter((name) => name !== undefined)
    })
    for (const name of Object.keys(template.Conditions)) names.add(`condition ${name}`)
    expect(referred.length).toBeGreaterThan(80)
    expect(
      referred.filter((name) => !names.has(String(name)) && !String(name).startsWith('AWS::')),
    ).toEqual([])
  })

  it('has just-in-time registration as a whole or not at all', () => {
    const gated = resources
      .filter(([, { Condition }]) => Condition === 'HasJitr')
      .map(([, { Type }]) => Type)
    expect(gated.sort()).toEqual([
      'AWS::CloudWatch::Alarm',
      'AWS::IAM::Role',
      'AWS::IoT::TopicRule',
      'AWS::Lambda::Permission',
      'AWS::Logs::LogGroup',
      'AWS::Logs::MetricFilter',
      'AWS::Serverless::Function',
    ])
  })

  it('gives every topic rule an action for what it could not deliver', () => {
    expect(ofType('AWS::IoT::TopicRule').length).toBe(2)
    for (const [, { Properties }] of ofType('AWS::IoT::TopicRule'))
      expect(Properties).toHaveProperty('TopicRulePayload.ErrorAction.CloudwatchLogs.RoleArn')
  })

  it('lets only its own API and its own rules call a function', () => {
    const permissions = ofType('AWS::Lambda::Permission')
    expect(permissions.length).toBe(3)
    for (const [, { Properties }] of permissions) expect(Properties).toHaveProperty('SourceArn')
  })

  it('throttles, and has an alarm for each way to fail', () => {
    const stage = only('AWS::ApiGatewayV2::Stage')
    expect(stage.DefaultRouteSettings).toMatchObject({
      ThrottlingRateLimit: { Ref: 'RequestsPerSecond' },
      ThrottlingBurstLimit: { Ref: 'RequestsBurst' },
    })
    const watched = ofType('AWS::CloudWatch::Alarm').map(([name]) => name)
    for (const name of [
      'Refusals',
      'Theft',
      'Failures',
      'VendErrors',
      'VendThrottles',
      'ApiFailures',
      'SweepErrors',
    ])
      expect(watched).toContain(`${name}Alarm`)
  })

  it('hears the alarms of the activator as it does those of the vending function', () => {
    const filters = ofType('AWS::Logs::MetricFilter').filter(
      ([, { Properties }]) => Properties.FilterPattern === '{ $.level = "alarm" }',
    )
    expect(
      filters.map(([, { Condition, Properties }]) => [Properties.LogGroupName, Condition]),
    ).toEqual([
      [{ Ref: 'VendLogs' }, undefined],
      [{ Ref: 'ActivateLogs' }, 'HasJitr'],
    ])
    const { MetricName } = template.Resources.TheftAlarm!.Properties
    for (const [, { Properties }] of filters)
      expect(Properties.MetricTransformations).toMatchObject([{ MetricName }])
  })

  it('says to the functions what they read, and nothing else', () => {
    const settings = fs.readFileSync(path.join(here, 'src/lambda/settings.ts'), 'utf8')
    const read = new Set(settings.match(/CERTVEND_[A-Z_]+/g))
    const { Variables } = template.Globals.Function.Environment as { Variables: Fields }
    expect(Object.keys(Variables).sort()).toEqual([...read].sort())
  })
})
