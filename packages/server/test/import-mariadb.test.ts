/** The table of the 2017 vending machine as MariaDB's own programs write it. */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { judgeRow } from '../src/import/row.ts'
import { readRows } from '../src/import/source.ts'
import { type Mariadb, noMariadb, startMariadb } from './mariadb.ts'

/** Tokens that a dump has to escape. */
const tokens = ["it's", 'a"b', 'c\\d', '`e`', 'f),(g', '--h', '/*i*/', '#j;', 'plain']

describe.skipIf(noMariadb)(`product in MariaDB${noMariadb ? ` (${noMariadb})` : ''}`, () => {
  let server: Mariadb
  let directory: string
  beforeAll(async () => {
    directory = mkdtempSync(join(tmpdir(), 'certvend-import-'))
    server = await startMariadb()
    await server.ask('CREATE DATABASE cvm')
    const values = tokens.map(
      (token, index) => `(${index + 1}, ${JSON.stringify(token)}, ${index % 2})`,
    )
    await server.ask(
      `CREATE TABLE other (id INT PRIMARY KEY, note TEXT);
       INSERT INTO other VALUES (1, 'INSERT INTO product VALUES (9)');
       CREATE TABLE product (seriaNum INT PRIMARY KEY, accessToken VARCHAR(255), applyState TINYINT,
         thingName VARCHAR(128), policyName VARCHAR(128) DEFAULT 'a,b', KEY t (thingName));
       INSERT INTO product (seriaNum, accessToken, applyState) VALUES ${values.join(', ')}`,
      'cvm',
    )
  })
  afterAll(async () => {
    await server.stop()
    rmSync(directory, { recursive: true })
  })

  const written = (program: string, ...words: string[]): string => {
    const path = join(directory, 'export')
    const login = ['--no-defaults', `--socket=${server.socketPath}`, '--user=root']
    writeFileSync(path, execFileSync(program, [...login, ...words]))
    return path
  }

  async function judged(path: string) {
    const found: unknown[] = []
    for await (const { fields } of readRows(path)) {
      const judgement = judgeRow(fields)
      if (!judgement.ok) throw new Error(judgement.reason)
      const { deviceSerial, token, spentOn } = judgement.row
      found.push([deviceSerial, token, spentOn !== undefined])
    }
    return found
  }

  const expected = tokens.map((token, index) => [String(index + 1), token, index % 2 === 0])

  it.each([
    ['as it is', []],
    ['of all tables', ['--databases', 'cvm']],
    ['with the columns named', ['--complete-insert']],
    ['with a statement for each row', ['--skip-extended-insert']],
    [
      'without a CREATE TABLE, and so with the columns named',
      ['--no-create-info', '--complete-insert'],
    ],
    ['for other databases', ['--compatible=ansi']],
    ['without quotes round names', ['--skip-quote-names']],
  ])('is read from a dump %s', async (_, words) => {
    const tables = words.includes('--databases') ? [] : ['cvm', 'other', 'product']
    expect(await judged(written('mariadb-dump', ...words, ...tables))).toEqual(expected)
  })

  it('is read from what the client prints into a file, NULL and all', async () => {
    const plain = 'SELECT * FROM product WHERE seriaNum = 9'
    const path = written('mariadb', '--batch', '--execute', plain, 'cvm')
    expect(await judged(path)).toEqual([['9', 'plain', true]])
  })
})
