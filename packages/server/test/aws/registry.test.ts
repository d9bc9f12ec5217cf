/** The conformance suite again, against two other readings of DynamoDB (`npm run test:aws`). */
import {
  CreateTableCommand,
  DescribeContinuousBackupsCommand,
  DescribeTableCommand,
  DescribeTimeToLiveCommand,
} from '@aws-sdk/client-dynamodb'
import { describe, expect, it } from 'vitest'
import { prepareDynamodb } from '../../src/registry/dynamodb/preparation.ts'
import { openDynamodbRegistry } from '../../src/registry/dynamodb.ts'
import { clientFor, homeAt, tablesFor } from '../dynamodb.ts'
import { add } from '../registry-suite/facts.ts'
import { describeRegistry } from '../registry-suite/suite.ts'

for (const [name, url] of [
  ['moto', process.env.MOTO_URL],
  ['MiniStack', process.env.MINISTACK_URL],
] as const)
  describeRegistry(`DynamoDB as ${name} has it`, async () => homeAt(url!), {
    skip: url ? undefined : 'npm run test:aws',
  })

describe.skipIf(!process.env.MOTO_URL)('registry prepare', () => {
  it('makes both tables as the template would, once, and leaves the old one as it is', async () => {
    const client = clientFor(process.env.MOTO_URL!)
    const table = `prepared-${process.pid}`
    await client.send(new CreateTableCommand(tablesFor(table)[0]!))
    const ledger = `${table}-certvend`
    expect(await prepareDynamodb({ table, client })).toEqual([`made the table ${ledger}`])
    expect(await prepareDynamodb({ table, client })).toEqual([])
    const { Table } = await client.send(new DescribeTableCommand({ TableName: ledger }))
    expect(Table).toMatchObject({
      DeletionProtectionEnabled: true,
      BillingModeSummary: { BillingMode: 'PAY_PER_REQUEST' },
    })
    const expiry = await client.send(new DescribeTimeToLiveCommand({ TableName: ledger }))
    expect(expiry.TimeToLiveDescription).toEqual({
      AttributeName: 'expiresAt',
      TimeToLiveStatus: 'ENABLED',
    })
    const backups = await client.send(new DescribeContinuousBackupsCommand({ TableName: ledger }))
    expect(
      backups.ContinuousBackupsDescription?.PointInTimeRecoveryDescription
        ?.PointInTimeRecoveryStatus,
    ).toBe('ENABLED')
    const registry = openDynamodbRegistry({ table, client })
    expect(await add(registry, 'SN-1')).toBe('added')
    client.destroy()
  })
})
