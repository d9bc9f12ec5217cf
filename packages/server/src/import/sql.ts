/**
 * A dump of mysqldump: the INSERTs into the table that has the columns which are known here, and the
 * CREATE TABLE before them, which names the columns where the INSERTs do not.
 *
 * @see https://dev.mysql.com/doc/refman/8.4/en/string-literals.html
 */
import { isKnownTable, knownTables } from './row.ts'
import { type Chunks, type Rows, unreadable } from './table.ts'

/** A word, a mark, or a value that stood between quotes. */
type Token =
  | { readonly kind: 'word' | 'mark'; readonly text: string }
  | { readonly kind: 'name' | 'value'; readonly text: string }

export async function* readSql(chunks: Chunks): Rows {
  const tokens = createReader(tokenize(chunks))
  const columnsOf = new Map<string, readonly string[]>()
  let number = 0
  let tables = 0
  for (let token = await tokens.next(); token; token = await tokens.next()) {
    if (isWord(token, 'CREATE')) {
      const created = await readCreate(tokens)
      if (created) columnsOf.set(created.table, created.columns)
    } else if (isWord(token, 'INSERT')) {
      const { table, columns } = await readInsertHead(tokens, number)
      const names = columns ?? columnsOf.get(table)
      if (!names || !isKnownTable(names)) {
        await skipStatement(tokens)
        continue
      }
      tables += 1
      for await (const values of readValues(tokens, number)) {
        number += 1
        yield { number, fields: fieldsOf(names, values) }
      }
    } else if (!isMark(token, ';')) await skipStatement(tokens)
  }
  if (tables === 0)
    throw unreadable(
      'the dump has no INSERT into a table that is known here',
      `needed is one with the column ${knownTables}`,
    )
}

const fieldsOf = (names: readonly string[], values: readonly (string | null)[]) =>
  values.length === names.length
    ? Object.fromEntries(names.map((name, index) => [name, values[index]]))
    : { cells: `${values.length} instead of ${names.length}` }

interface Reader {
  next(): Promise<Token | undefined>
}

const createReader = (tokens: AsyncGenerator<Token>): Reader => ({
  next: async () => (await tokens.next()).value ?? undefined,
})

const isWord = (token: Token | undefined, text: string): boolean =>
  token?.kind === 'word' && token.text.toUpperCase() === text
const isMark = (token: Token | undefined, text: string): boolean =>
  token?.kind === 'mark' && token.text === text

async function skipStatement(tokens: Reader): Promise<void> {
  for (let token = await tokens.next(); token && !isMark(token, ';'); token = await tokens.next());
}

/** The names at the start of each definition between the outer brackets; keys and the like have none. */
async function readCreate(tokens: Reader) {
  if (!isWord(await tokens.next(), 'TABLE')) return void (await skipStatement(tokens))
  let table = ''
  let depth = 0
  let atStart = false
  const columns: string[] = []
  for (let token = await tokens.next(); token && !isMark(token, ';'); token = await tokens.next()) {
    if (depth === 0 && token.kind !== 'mark') table = tableName(table, token)
    if (depth === 1 && atStart && isColumn(token)) columns.push(token.text)
    atStart = (depth === 0 && isMark(token, '(')) || (depth === 1 && isMark(token, ','))
    if (isMark(token, '(')) depth += 1
    if (isMark(token, ')')) depth -= 1
    if (depth === 0 && columns.length > 0) {
      await skipStatement(tokens)
      break
    }
  }
  return { table, columns }
}

const isColumn = ({ kind, text }: Token): boolean =>
  kind === 'name' ||
  kind === 'value' || // ANSI's way to quote a name
  (kind === 'word' &&
    !/^(?:PRIMARY|UNIQUE|KEY|INDEX|FULLTEXT|SPATIAL|CONSTRAINT|FOREIGN|CHECK)$/i.test(text))

/** IF NOT EXISTS is no name; of `database`.`table` the last counts. */
const tableName = (table: string, { kind, text }: Token): string =>
  kind !== 'word' || !/^(?:IF|NOT|EXISTS)$/i.test(text) ? text : table

async function readInsertHead(tokens: Reader, number: number) {
  let table = ''
  let columns: string[] | undefined
  for (let token = await tokens.next(); token; token = await tokens.next()) {
    if (isWord(token, 'VALUES') || isWord(token, 'VALUE')) return { table, columns }
    if (isMark(token, ';')) break
    if (isMark(token, '(')) columns = []
    else if (token.kind !== 'mark') {
      if (columns) columns.push(token.text)
      else if (!/^(?:INTO|IGNORE)$/i.test(token.text)) table = token.text
    }
  }
  throw brokenAfter(number)
}

/** The tuples of one INSERT. */
async function* readValues(tokens: Reader, first: number): AsyncGenerator<(string | null)[]> {
  let number = first
  for (;;) {
    if (!isMark(await tokens.next(), '(')) throw brokenAfter(number)
    const values: (string | null)[] = []
    let token = await tokens.next()
    while (!isMark(token, ')')) {
      if (!token) throw brokenAfter(number)
      if (token.kind === 'word' && /^_\w+$/.test(token.text)) {
        // _binary, _utf8mb4: how the text after it is encoded
      } else if (token.kind === 'value') values.push(token.text)
      else if (token.kind === 'word') values.push(/^NULL$/i.test(token.text) ? null : token.text)
      else if (!isMark(token, ',')) throw brokenAfter(number)
      token = await tokens.next()
    }
    yield values
    number += 1
    const next = await tokens.next()
    if (isMark(next, ';')) return
    if (!isMark(next, ',')) throw brokenAfter(number)
  }
}

const brokenAfter = (number: number) =>
  unreadable(`the dump breaks off after row ${number}, or is none from there`, 'dump it again')

const escapes: Readonly<Record<string, string>> = {
  0: '\0',
  b: '\b',
  n: '\n',
  r: '\r',
  t: '\t',
  Z: '\x1a',
}

/** Cuts the text into tokens, whatever the pieces are that it comes in. */
async function* tokenize(chunks: Chunks): AsyncGenerator<Token> {
  const iterator = chunks[Symbol.asyncIterator]()
  let text = ''
  let at = 0
  /** Whether there are `count` more characters; makes them be there. Awaited only where they are not. */
  const lacks = (count: number): boolean => text.length - at < count
  async function has(count: number): Promise<boolean> {
    while (lacks(count)) {
      const { value, done } = await iterator.next()
      if (done) return false
      text = text.slice(at) + value
      at = 0
    }
    return true
  }
  /** As much as matches from here, across pieces. */
  async function run(pattern: RegExp): Promise<string> {
    let out = ''
    while (!lacks(1) || (await has(1))) {
      pattern.lastIndex = at
      const [found = ''] = pattern.exec(text) ?? []
      at += found.length
      out += found
      if (!lacks(1)) return out
    }
    return out
  }
  async function quoted(quote: string): Promise<string> {
    const plain = { "'": /[^'\\]*/y, '"': /[^"\\]*/y }[quote] ?? /[^`]*/y
    let out = ''
    for (;;) {
      out += await run(plain)
      if (!(await has(1))) break
      const char = text[at++]!
      if (char === quote) {
        if (!((await has(1)) && text[at] === quote)) return out
        at += 1
        out += quote
      } else {
        if (!(await has(1))) break
        const escaped = text[at++]!
        out += escapes[escaped] ?? escaped
      }
    }
    throw unreadable('the dump ends within a text', 'dump it again')
  }
  async function skipUntil(end: string): Promise<void> {
    let found = text.indexOf(end, at)
    while (found < 0) {
      at = Math.max(at, text.length - end.length + 1) // its beginning may be there already
      if (!(await has(text.length - at + 1))) break
      found = text.indexOf(end, at)
    }
    at = found < 0 ? text.length : found + end.length
  }
  while (!lacks(1) || (await has(1))) {
    const char = text[at]!
    if (/\s/.test(char)) at += 1
    else if (char === '#') await skipUntil('\n')
    else if (char === '-' && (await has(2)) && text[at + 1] === '-') await skipUntil('\n')
    else if (char === '/' && (await has(2)) && text[at + 1] === '*') await skipUntil('*/')
    else if (char === "'" || char === '"' || char === '`') {
      at += 1
      yield { kind: char === '`' ? 'name' : 'value', text: await quoted(char) }
    } else if (/[\w.+-]/.test(char)) yield { kind: 'word', text: await run(/[\w.+-]*/y) }
    else {
      at += 1
      yield { kind: 'mark', text: char }
    }
  }
}
