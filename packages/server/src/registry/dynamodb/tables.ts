/**
 * The two tables, as few calls: items in plain JavaScript, every read consistent, every write
 * conditional. The only file that knows the AWS SDK.
 *
 * Permissions: GetItem, PutItem, UpdateItem, DeleteItem, Query, Scan; no transactions, no batches.
 */
import {
  type AttributeValue,
  ConditionalCheckFailedException,
  DeleteItemCommand,
  DynamoDBClient,
  GetItemCommand,
  PutItemCommand,
  QueryCommand,
  type QueryCommandInput,
  ScanCommand,
  UpdateItemCommand,
} from '@aws-sdk/client-dynamodb'
import { marshall, unmarshall } from '@aws-sdk/util-dynamodb'
import { second } from '../../clock.ts'
import { registryBusy } from '../registry.ts'

export type Item = Readonly<Record<string, unknown>>

/** One item: where it is. */
export interface Ref {
  readonly table: string
  readonly key: Readonly<Record<string, string>>
}

/** Attributes that an item must have with these values; undefined: must not have. */
export type Condition = Readonly<Record<string, unknown>>

export interface Tables {
  get(ref: Ref): Promise<Item | undefined>
  /** Puts an item where there is none. @returns false if there is one */
  putNew(ref: Ref, item: Item): Promise<boolean>
  /** Deletes an item on a condition. @returns false if the condition did not hold */
  remove(ref: Ref, condition: Condition): Promise<boolean>
  /**
   * Changes an item on a condition; an attribute set to undefined is removed. `orAbsent` also makes
   * one where there is none.
   *
   * @returns the item as it is then, or undefined if the condition did not hold
   */
  update(
    ref: Ref,
    set: Item,
    condition: Condition,
    options?: { readonly orAbsent: boolean },
  ): Promise<Item | undefined>
  /** Items of one partition, from `from` (inclusive) or after `after`, in the order of their sort keys. */
  query(
    table: string,
    partition: Readonly<Record<string, string>>,
    range: Range,
  ): AsyncIterable<Item>
  /** Items in the table's own order, after the one with the key `after`. */
  scan(table: string, after: Ref['key'] | undefined, limit: number): AsyncIterable<Item>
  close(): void
}

export interface Range {
  /** Sort keys begin with this. */
  readonly prefix: string
  /** Sort keys after this one. */
  readonly after?: string
  readonly newestFirst?: boolean
  /** An index is read as it is: a moment behind. */
  readonly index?: string
  readonly limit?: number
}

/** Longer than any answer takes, shorter than a device waits, in milliseconds. */
const timeouts = { connectionTimeout: 2 * second, requestTimeout: 5 * second }

/** @param given a client of the caller's own, which stays open */
export function openTables(given?: DynamoDBClient): Tables {
  const client = given ?? new DynamoDBClient({ requestHandler: timeouts, maxAttempts: 4 })

  const update: Tables['update'] = (ref, set, condition, { orAbsent } = { orAbsent: false }) => {
    const words = createWords()
    const sets: string[] = []
    const removes: string[] = []
    for (const [name, value] of Object.entries(set))
      if (value === undefined) removes.push(words.name(name))
      else sets.push(`${words.name(name)} = ${words.value(value)}`)
    const [keyName = ''] = Object.keys(ref.key)
    const held = words.condition(condition)
    const exists = `attribute_exists(${words.name(keyName)})`
    const ConditionExpression = orAbsent
      ? `attribute_not_exists(${words.name(keyName)}) OR (${held || exists})`
      : [exists, held].filter(Boolean).join(' AND ')
    return orUndefined(async () => {
      const { Attributes } = await client.send(
        new UpdateItemCommand({
          TableName: ref.table,
          Key: marshall(ref.key),
          UpdateExpression: [
            sets.length > 0 ? `SET ${sets.join(', ')}` : '',
            removes.length > 0 ? `REMOVE ${removes.join(', ')}` : '',
          ].join(' '),
          ConditionExpression,
          ...words.given(),
          ReturnValues: 'ALL_NEW',
        }),
      )
      return toItem(Attributes)!
    })
  }

  async function* query(
    table: string,
    partition: Readonly<Record<string, string>>,
    range: Range,
  ): AsyncGenerator<Item> {
    const [[hash, value] = ['', '']] = Object.entries(partition)
    const { prefix, after, newestFirst = false, index, limit } = range
    const from = after ?? prefix
    const sorted = after === undefined ? 'begins_with(sk, :from)' : 'sk > :from'
    const input: QueryCommandInput = {
      TableName: table,
      KeyConditionExpression: `#hash = :hash${from === '' ? '' : ` AND ${sorted}`}`,
      ExpressionAttributeNames: { '#hash': hash },
      ExpressionAttributeValues: marshall({
        ':hash': value,
        ...(from !== '' && { ':from': from }),
      }),
      ScanIndexForward: !newestFirst,
      ...(index === undefined ? { ConsistentRead: true } : { IndexName: index }),
      ...(limit !== undefined && { Limit: limit }),
    }
    for (let start: Record<string, AttributeValue> | undefined; ; ) {
      const page = await orBusy(() =>
        client.send(new QueryCommand({ ...input, ...(start && { ExclusiveStartKey: start }) })),
      )
      for (const item of page.Items ?? []) yield toItem(item)!
      start = page.LastEvaluatedKey
      if (!start) return
    }
  }

  async function* scan(
    table: string,
    after: Ref['key'] | undefined,
    limit: number,
  ): AsyncGenerator<Item> {
    for (let start = after && marshall(after); ; ) {
      const page = await orBusy(() =>
        client.send(
          new ScanCommand({
            TableName: table,
            Limit: limit,
            ...(start && { ExclusiveStartKey: start }),
          }),
        ),
      )
      for (const item of page.Items ?? []) yield toItem(item)!
      start = page.LastEvaluatedKey
      if (!start) return
    }
  }

  return {
    get: async ({ table, key }) => {
      const input = { TableName: table, Key: marshall(key), ConsistentRead: true }
      return toItem((await orBusy(() => client.send(new GetItemCommand(input)))).Item)
    },
    putNew: async ({ table, key }, item) => {
      const [keyName = ''] = Object.keys(key)
      const put = new PutItemCommand({
        TableName: table,
        Item: marshall({ ...item, ...key }, { removeUndefinedValues: true }),
        ConditionExpression: 'attribute_not_exists(#key)',
        ExpressionAttributeNames: { '#key': keyName },
      })
      return (await orUndefined(async () => client.send(put).then(() => true))) ?? false
    },
    remove: async ({ table, key }, condition) => {
      const words = createWords()
      const remove = new DeleteItemCommand({
        TableName: table,
        Key: marshall(key),
        ConditionExpression: words.condition(condition),
        ...words.given(),
      })
      return (await orUndefined(async () => client.send(remove).then(() => true))) ?? false
    },
    update,
    query,
    scan,
    close: () => {
      if (!given) client.destroy()
    },
  }
}

/** Names and values of one expression; every name goes through a placeholder, so none is reserved. */
function createWords() {
  const names: Record<string, string> = {}
  const values: Record<string, AttributeValue> = {}
  const name = (text: string): string => {
    const known = Object.keys(names).find((placeholder) => names[placeholder] === text)
    if (known !== undefined) return known
    const placeholder = `#n${Object.keys(names).length}`
    names[placeholder] = text
    return placeholder
  }
  const value = (of: unknown): string => {
    const placeholder = `:v${Object.keys(values).length}`
    Object.assign(values, marshall({ [placeholder]: of }, { removeUndefinedValues: true }))
    return placeholder
  }
  return {
    name,
    value,
    condition: (condition: Condition): string =>
      Object.entries(condition)
        .map(([key, wanted]) =>
          wanted === undefined
            ? `attribute_not_exists(${name(key)})`
            : `${name(key)} = ${value(wanted)}`,
        )
        .join(' AND '),
    given: () => ({
      ExpressionAttributeNames: names,
      ...(Object.keys(values).length > 0 && { ExpressionAttributeValues: values }),
    }),
  }
}

/** Numbers that JavaScript cannot hold stay text: a token of twenty digits is one in old tables. */
const wrapNumbers = (text: string): number | string =>
  Number.isSafeInteger(Number(text)) ? Number(text) : text

const toItem = (item: Record<string, AttributeValue> | undefined): Item | undefined =>
  item && unmarshall(item, { wrapNumbers })

async function orUndefined<T>(call: () => Promise<T>): Promise<T | undefined> {
  try {
    return await orBusy(call)
  } catch (error) {
    if (error instanceof ConditionalCheckFailedException) return undefined
    throw error
  }
}

const passing =
  /^(ProvisionedThroughputExceeded|Throttling|RequestLimitExceeded|InternalServerError|ServiceUnavailable|TransactionConflict|TimeoutError|E(CONN|PIPE|AI_AGAIN|HOST|NET|TIMEDOUT))/

async function orBusy<T>(call: () => Promise<T>): Promise<T> {
  try {
    return await call()
  } catch (error) {
    const { name, code, $fault } = error as { name?: string; code?: string; $fault?: string }
    if ($fault === 'server' || passing.test(name ?? '') || passing.test(code ?? ''))
      throw registryBusy(error)
    throw error
  }
}
