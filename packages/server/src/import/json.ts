/**
 * JSON as the AWS CLI writes it: the whole answer of `aws dynamodb scan`, the list of items alone, one
 * item per line, or an export to S3 (`{"Item": …}` per line). Items are handed on one by one.
 */
import { JSONParser } from '@streamparser/json'
import { type Chunks, isUnreadable, type Rows, type SourceRow, unreadable } from './table.ts'

type Json = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

export async function* readJson(chunks: Chunks): Rows {
  let found: SourceRow[] = []
  let number = 0
  let parser: JSONParser | undefined
  let failure: Error | undefined
  const take = (item: unknown) => {
    number += 1
    found.push({ number, fields: isObject(item) ? item : {} })
  }
  /** A list, or anything that begins with an object. */
  const open = (isList: boolean): JSONParser => {
    const opened = new JSONParser({
      paths: isList ? ['$.*'] : ['$.Items.*', '$'],
      keepStack: false, // what was handed on is dropped
      separator: '', // one text after the other, with blanks between
    })
    opened.onError = (error) => {
      failure ??= error
    }
    opened.onValue = ({ value, stack }) => {
      if (stack.length > 0) take(value)
      else if (isObject(value)) takeRoot(value)
    }
    return opened
  }
  const takeRoot = (root: Json) => {
    if (root.NextToken !== undefined || root.LastEvaluatedKey !== undefined)
      failure ??= unreadable(
        'the export is one page of several',
        'export all of it: aws dynamodb scan without --max-items and --no-paginate',
      )
    else if (isObject(root.Item)) take(root.Item)
    else if (!('Items' in root)) take(root)
  }
  const feed = (step: (open: JSONParser) => void) => {
    try {
      if (parser && !failure) step(parser)
    } catch (error) {
      failure ??= error as Error
    }
  }
  for await (const chunk of chunks) {
    const [first] = chunk.trimStart()
    if (first !== undefined) parser ??= open(first === '[')
    feed((opened) => opened.write(chunk))
    yield* found
    found = []
    if (failure) break
  }
  feed((opened) => opened.end())
  yield* found
  if (failure && isUnreadable(failure)) throw failure
  if (failure)
    throw unreadable(
      `the JSON breaks off after row ${number}, or is none from there`,
      'export it again, or mend the file there',
    )
}
