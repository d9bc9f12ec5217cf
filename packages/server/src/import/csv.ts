/** CSV with a heading, as spreadsheets and databases write it: commas, semicolons or tabs. */
import { type CsvError, parse } from 'csv-parse'
import { isKnownTable, knownTables } from './row.ts'
import { type Chunks, type Rows, unreadable } from './table.ts'

export async function* readCsv(chunks: Chunks): Rows {
  const iterator = chunks[Symbol.asyncIterator]()
  const head = await readHeading(iterator)
  const delimiter = [',', ';', '\t'].find((mark) => isKnownTable(split(head.line, mark)))
  if (delimiter === undefined)
    throw unreadable(
      'the first line names no column that is known here',
      `a CSV needs a heading with ${knownTables}`,
    )
  const parser = parse({
    bom: true,
    delimiter,
    relax_column_count: true,
    relax_quotes: true,
    skip_empty_lines: true,
  })
  const fed = feed(parser, head.text, iterator)
  fed.catch((error: Error) => parser.destroy(error))
  let names: readonly string[] | undefined
  let number = 0
  try {
    for await (const record of parser as AsyncIterable<readonly string[]>) {
      if (!names) {
        names = record
        continue
      }
      number += 1
      yield { number, fields: fieldsOf(names, record) }
    }
    await fed
  } catch (error) {
    if (!(error as Partial<CsvError>).code?.startsWith('CSV_')) throw error
    throw unreadable(`the CSV cannot be read after row ${number}`, 'look for a stray quote there')
  }
}

/** A row with more or fewer cells than the heading is told by a column of its own, which nobody knows. */
const fieldsOf = (names: readonly string[], record: readonly string[]) =>
  record.length === names.length
    ? Object.fromEntries(names.map((name, index) => [name, record[index]]))
    : { cells: `${record.length} instead of ${names.length}` }

async function readHeading(iterator: AsyncIterator<string>) {
  let text = ''
  for (;;) {
    const { value, done } = await iterator.next()
    text += value ?? ''
    const end = text.search(/[\r\n]/)
    if (end >= 0 || done || text.length > 64 * 1024)
      return { text, line: (end < 0 ? text : text.slice(0, end)).replace(/^\uFEFF/, '') }
  }
}

const split = (line: string, mark: string): string[] =>
  line.split(mark).map((cell) => cell.trim().replaceAll('"', ''))

async function feed(
  parser: ReturnType<typeof parse>,
  head: string,
  rest: AsyncIterator<string>,
): Promise<void> {
  const push = async (text: string) => {
    if (!parser.write(text)) await new Promise((resolve) => parser.once('drain', resolve))
  }
  await push(head)
  for (let next = await rest.next(); !next.done; next = await rest.next()) await push(next.value)
  parser.end()
}
