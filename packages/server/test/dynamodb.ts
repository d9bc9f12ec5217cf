/** Databases that speak DynamoDB: tables like those of the template, each time new ones. */
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import {
  CreateTableCommand,
  type CreateTableCommandInput,
  DeleteTableCommand,
  DescribeTableCommand,
  DynamoDBClient,
} from '@aws-sdk/client-dynamodb'
import dynalite from 'dynalite'
import { afterAll } from 'vitest'
import { openDynamodbRegistry } from '../src/registry/dynamodb.ts'
import type { Home } from './registry-suite/suite.ts'

export const clientFor = (endpoint: string): DynamoDBClient =>
  new DynamoDBClient({
    endpoint,
    region: 'eu-west-1',
    credentials: { accessKeyId: 'nobody', secretAccessKey: 'nothing' },
    maxAttempts: 1,
  })

/** As in `template.yaml`. */
export function tablesFor(device: string, key = 'serialNumber'): CreateTableCommandInput[] {
  const BillingMode = 'PAY_PER_REQUEST' as const
  const hash = (AttributeName: string) => ({ AttributeName, KeyType: 'HASH' as const })
  const range = (AttributeName: string) => ({ AttributeName, KeyType: 'RANGE' as const })
  const text = (AttributeName: string) => ({ AttributeName, AttributeType: 'S' as const })
  return [
    {
      TableName: device,
      BillingMode,
      AttributeDefinitions: [text(key)],
      KeySchema: [hash(key)],
    },
    {
      TableName: `${device}-certvend`,
      BillingMode,
      AttributeDefinitions: [text('pk'), text('sk'), text('trail')],
      KeySchema: [hash('pk'), range('sk')],
      GlobalSecondaryIndexes: [
        {
          IndexName: 'trail',
          KeySchema: [hash('trail'), range('sk')],
          Projection: { ProjectionType: 'ALL' },
        },
      ],
    },
  ]
}

/** A home at an endpoint that is already there; `stop` ends what was started for it. */
export function homeAt(endpoint: string, stop: () => Promise<void> = async () => {}): Home {
  const client = clientFor(endpoint)
  let made = 0
  return {
    async make() {
      made += 1
      const table = `registry-${process.pid}-${made}`
      for (const input of tablesFor(table)) await makeTable(client, input)
      return {
        open: async () => openDynamodbRegistry({ table, client }),
        async remove() {
          for (const { TableName } of tablesFor(table))
            await client.send(new DeleteTableCommand({ TableName }))
        },
      }
    },
    async stop() {
      client.destroy()
      await stop()
    },
  }
}

/** DynamoDB in JavaScript, written by others: one at a time, conditions as AWS has them. */
export async function startDynalite(): Promise<{ endpoint: string; stop(): Promise<void> }> {
  const server: Server = dynalite({ createTableMs: 0, deleteTableMs: 0, updateTableMs: 0 })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  return {
    endpoint: `http://127.0.0.1:${port}`,
    stop: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** A client of one that runs for the whole test file. */
export async function dynaliteClient(): Promise<DynamoDBClient> {
  const { endpoint, stop } = await startDynalite()
  const client = clientFor(endpoint)
  afterAll(async () => {
    client.destroy()
    await stop()
  })
  return client
}

/** A table is not there before it is ACTIVE, which comes a moment after it was made. */
export async function makeTable(
  client: DynamoDBClient,
  input: CreateTableCommandInput,
): Promise<void> {
  await client.send(new CreateTableCommand(input))
  const { TableName } = input
  for (;;) {
    const { Table } = await client.send(new DescribeTableCommand({ TableName }))
    if (Table?.TableStatus === 'ACTIVE') return
  }
}
