/**
 * The tables of the registry where no template made them: on demand, with point-in-time recovery,
 * deletion protection and expiry; encryption at rest is DynamoDB's default. Every step can be repeated.
 */
import {
  CreateTableCommand,
  type CreateTableCommandInput,
  DescribeTableCommand,
  DynamoDBClient,
  ResourceInUseException,
  UpdateContinuousBackupsCommand,
  UpdateTimeToLiveCommand,
  waitUntilTableExists,
} from '@aws-sdk/client-dynamodb'
import type { DynamodbOptions } from '../dynamodb.ts'
import { shapes } from './rows.ts'

/** Makes what is missing. @returns what was done, one line each; nothing if all was there */
export async function prepareDynamodb(options: DynamodbOptions): Promise<string[]> {
  const client = options.client ?? new DynamoDBClient()
  const { table, ledger = `${table}-certvend`, shape = 'device-info' } = options
  const text = (AttributeName: string) => ({ AttributeName, AttributeType: 'S' as const })
  const key = (hash: string, range?: string): CreateTableCommandInput['KeySchema'] => [
    { AttributeName: hash, KeyType: 'HASH' },
    ...(range === undefined ? [] : [{ AttributeName: range, KeyType: 'RANGE' as const }]),
  ]
  const done: string[] = []
  const make = async (input: CreateTableCommandInput) => {
    const { TableName } = input
    try {
      const common = { BillingMode: 'PAY_PER_REQUEST', DeletionProtectionEnabled: true } as const
      await client.send(new CreateTableCommand({ ...common, ...input }))
      done.push(`made the table ${TableName}`)
    } catch (error) {
      if (!(error instanceof ResourceInUseException)) throw error
      await client.send(new DescribeTableCommand({ TableName }))
      return false
    }
    await waitUntilTableExists({ client, maxWaitTime: 120, minDelay: 1 }, { TableName })
    const PointInTimeRecoverySpecification = { PointInTimeRecoveryEnabled: true }
    await client.send(
      new UpdateContinuousBackupsCommand({ TableName, PointInTimeRecoverySpecification }),
    )
    return true
  }
  try {
    const { serial } = shapes[shape]
    await make({
      TableName: table,
      AttributeDefinitions: [text(serial)],
      KeySchema: key(serial),
    })
    const isNew = await make({
      TableName: ledger,
      AttributeDefinitions: ['pk', 'sk', 'trail'].map(text),
      KeySchema: key('pk', 'sk'),
      GlobalSecondaryIndexes: [
        {
          IndexName: 'trail',
          KeySchema: key('trail', 'sk'),
          Projection: { ProjectionType: 'ALL' },
        },
      ],
    })
    if (isNew)
      await client.send(
        new UpdateTimeToLiveCommand({
          TableName: ledger,
          TimeToLiveSpecification: { AttributeName: 'expiresAt', Enabled: true },
        }),
      )
  } finally {
    if (!options.client) client.destroy()
  }
  return done
}
