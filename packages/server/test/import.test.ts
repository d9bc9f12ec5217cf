/** Exports of old tables: what is read out of them, and what is refused with which reason. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { type Fields, judgeRow } from '../src/import/row.ts'
import { readRows } from '../src/import/source.ts'
import { makeWorkplace, type Workplace } from './command.ts'

let workplace: Workplace
beforeEach(() => {
  workplace = makeWorkplace()
})
afterEach(() => workplace.remove())

const put = (contents: string | Buffer, name = 'export'): string => {
  const path = join(workplace.directory, name)
  writeFileSync(path, contents)
  return path
}

async function rowsOf(contents: string | Buffer): Promise<Fields[]> {
  const rows: Fields[] = []
  for await (const { fields } of readRows(put(contents))) rows.push({ ...fields })
  return rows
}

const id = 'a'.repeat(64)
const arn = `arn:aws:iot:eu-west-1:123456789012:cert/${id}`
const strong = '0123456789abcdefABCDEF'

describe('JSON', () => {
  const items = [
    { serialNumber: { S: 'SN-1' }, deviceToken: { S: 'a' } },
    { serialNumber: { S: 'SN-2' }, deviceToken: { S: 'b' } },
  ]
  const scan = { Items: items, Count: 2, ScannedCount: 2, ConsumedCapacity: null }

  it.each([
    ['the answer of a scan', JSON.stringify(scan, null, 4)],
    ['the items alone', JSON.stringify(items)],
    ['one item per line', items.map((item) => JSON.stringify(item)).join('\r\n')],
    ['an export to S3', items.map((Item) => `${JSON.stringify({ Item })}\n`).join('')],
    ['what PowerShell makes of it', Buffer.from(`\uFEFF${JSON.stringify(scan)}`, 'utf16le')],
    ['what an editor made of it', `\uFEFF\n  ${JSON.stringify(scan)}\n\n`],
  ])('is read as %s', async (_, contents) => {
    expect(await rowsOf(contents)).toEqual(items)
  })

  it('that is one item alone is one row', async () => {
    expect(await rowsOf('{"serialNumber":"SN-1"}')).toEqual([{ serialNumber: 'SN-1' }])
  })

  it('with something else for an item has a row that is refused', async () => {
    expect(await rowsOf('[1, null, "x", []]')).toEqual([{}, {}, {}, {}])
  })

  it.each([
    ['that breaks off', JSON.stringify(scan).slice(0, 80), 'breaks off after row 1'],
    ['that breaks off between items', '[{"serialNumber":"SN-1"},', 'breaks off after row 1'],
    ['with a stray word', '[{"serialNumber":"SN-1"} oops]', 'breaks off after row 1'],
    ['of one page of several', JSON.stringify({ ...scan, NextToken: 'e' }), 'one page of several'],
    ['that stopped at its limit', JSON.stringify({ ...scan, LastEvaluatedKey: {} }), 'one page'],
    ['that is empty', ' \n', 'the file is empty'],
    ['that is compressed', Buffer.from([0x1f, 0x8b, 8, 0]), 'is compressed'],
    [
      'in another encoding',
      Buffer.from('[{"serialNumber":"Ger\u00e4t"}]', 'latin1'),
      'is not UTF-8',
    ],
  ])('%s is said to be so', async (_, contents, said) => {
    await expect(rowsOf(contents)).rejects.toThrow(said)
  })
})

describe('CSV', () => {
  const rows = [
    { serialNumber: 'SN-1', deviceToken: 'a,"b', certinfo: '' },
    { serialNumber: 'SN-2', deviceToken: 'c', certinfo: arn },
  ]
  it.each([[','], [';'], ['\t']])(
    'is read with %j between its cells, quotes, and either end of line',
    async (mark) => {
      const lines = [
        ['serialNumber', 'deviceToken', 'certinfo'],
        ['SN-1', '"a,""b"', ''],
        ['SN-2', 'c', arn],
      ].map((cells) => cells.join(mark))
      expect(await rowsOf(lines.join('\n'))).toEqual(rows)
      expect(await rowsOf(`\uFEFF${lines.join('\r\n')}\r\n\r\n`)).toEqual(rows)
    },
  )

  it('may hold the quoted heading and further columns of a spreadsheet', async () => {
    const [row] = await rowsOf('"note";"device_uid";"device_token";"is_enabled"\nx;D-1;abc;1\n')
    expect(judgeRow(row!)).toMatchObject({ ok: true, row: { deviceSerial: 'D-1' } })
  })

  it('with a row that is too short or too long has that row refused, and no other', async () => {
    const read = await rowsOf('serialNumber,deviceToken\nSN-1\nSN-2,a,b\nSN-3,c\n')
    expect(read.map((row) => judgeRow(row).ok)).toEqual([false, false, true])
  })

  it.each([
    ['without a heading', 'SN-1,abc\n', 'names no column'],
    ['of another table', 'name,age\nx,1\n', 'names no column'],
    ['with a stray quote', 'serialNumber,deviceToken\nSN-1,a\nSN-2,"b\n', 'after row 1'],
  ])('%s is said to be so', async (_, contents, said) => {
    await expect(rowsOf(contents)).rejects.toThrow(said)
  })
})

describe('a dump', () => {
  const create = `-- MySQL dump 10.13; it's a comment
/*!40101 SET NAMES utf8mb4 */;
DROP TABLE IF EXISTS \`other\`;
CREATE TABLE \`other\` (\`id\` int(11) NOT NULL, PRIMARY KEY (\`id\`));
INSERT INTO \`other\` VALUES (1),(2);
CREATE TABLE IF NOT EXISTS \`product\` (
  \`id\` int(11) NOT NULL AUTO_INCREMENT,
  \`seriaNum\` varchar(64) DEFAULT 'a,(b)',
  \`accessToken\` varchar(255) COLLATE utf8mb4_bin,
  \`applyState\` enum('0','1'),
  PRIMARY KEY (\`id\`), UNIQUE KEY \`s\` (\`seriaNum\`)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
LOCK TABLES \`product\` WRITE;
`
  const insert =
    "INSERT INTO `product` VALUES (1,'P-1','it\\'s; \\\\ \\\"ok\\\"',1),(2,'P-2',_binary 'b''c',0),(-3,'P-3',NULL,'1');\nUNLOCK TABLES;\n"
  const expected = [
    { id: '1', seriaNum: 'P-1', accessToken: `it's; \\ "ok"`, applyState: '1' },
    { id: '2', seriaNum: 'P-2', accessToken: "b'c", applyState: '0' },
    { id: '-3', seriaNum: 'P-3', accessToken: null, applyState: '1' },
  ]

  it('gives the rows of the one table that is known, by the columns of its CREATE', async () => {
    expect(await rowsOf(create + insert)).toEqual(expected)
  })

  it('gives them by the columns of its INSERTs, without a CREATE, of several INSERTs', async () => {
    const one = "insert into cvm.product (seriaNum, accessToken) values ('P-1', 'a');\n"
    const two = 'INSERT IGNORE INTO `product` (`accessToken`,`seriaNum`) VALUES ("b","P-2");'
    expect(await rowsOf(one + two)).toEqual([
      { seriaNum: 'P-1', accessToken: 'a' },
      { seriaNum: 'P-2', accessToken: 'b' },
    ])
  })

  it('gives the same however it is cut into pieces', async () => {
    const { readSql } = await import('../src/import/sql.ts')
    const text = create + insert
    for (const size of [1, 2, 3, 7, 61]) {
      const pieces = async function* () {
        for (let at = 0; at < text.length; at += size) yield text.slice(at, at + size)
      }
      const rows: Fields[] = []
      for await (const { fields } of readSql(pieces())) rows.push(fields)
      expect(rows, `pieces of ${size}`).toEqual(expected)
    }
  })

  it.each([
    [
      'of other tables',
      'CREATE TABLE a (b int);\nINSERT INTO a VALUES (1);',
      'no INSERT into a table',
    ],
    ['that breaks off within a row', `${create}${insert.slice(0, 80)}`, 'breaks off after row 1'],
    ['that breaks off within a text', `${create}${insert.slice(0, 45)}`, 'ends within a text'],
    ['with a row that is too short', `${create}INSERT INTO product VALUES (1,'P-1');`, undefined],
  ])('%s is said to be so', async (_, contents, said) => {
    if (said) return expect(rowsOf(contents)).rejects.toThrow(said)
    const [row] = await rowsOf(contents)
    return expect(judgeRow(row!)).toMatchObject({ ok: false })
  })
})

describe('certvend-server device import', () => {
  const table = [
    { serialNumber: 'SN-1', deviceToken: strong },
    { serialNumber: 'SN-2', deviceToken: 'weak1', certinfo: arn },
    { serialNumber: 'SN-1', deviceToken: `${strong}x` },
    { serialNumber: 'SN-3' },
    { serialNumber: 'no/serial', deviceToken: strong },
    { serialNumber: 'SN-4', deviceToken: `${strong}4` },
  ]
  const importing = (...words: string[]) => workplace.run(['device', 'import', 'export', ...words])

  it('adds what it can, lists the rest with row and reason, and says so by its exit code', async () => {
    put(JSON.stringify(table))
    const { code, out, err } = await importing('--policy', 'devices')
    expect(code).toBe(3)
    expect(out.split('\n').map((line) => line.split(/ {2,}/))).toEqual([
      ['row 3', 'SN-1', 'has the serial of row 1'],
      ['row 4', 'SN-3', 'has no token: nobody could claim it'],
      ['row 5', '-', expect.stringContaining('a serial that cannot be used')],
      [''],
    ])
    expect(err).toContain('added 3 devices (1 enrolled already, 1 with a weak token)')
    expect(err).toContain('3 of 6 rows were not taken')
    expect(err + out).not.toContain(strong)
    expect(err + out).not.toContain('no/serial')
    const states = (await workplace.device('list')).out
    expect(states).toMatch(/SN-1 +waiting/)
    expect(states).toMatch(/SN-2 +enrolled/)
    const shown = JSON.parse((await workplace.device('show SN-2 --json')).out)
    expect(shown).toMatchObject({
      policyName: 'devices',
      claim: { certificateId: id, token: 'weak' },
    })
  })

  it('passes over what is there already, so that a second run finishes a first', async () => {
    put(JSON.stringify(table.slice(0, 2)))
    expect((await importing()).code).toBe(0)
    put(JSON.stringify([...table.slice(0, 2), table[5]]))
    const { code, err } = await importing()
    expect([code, err]).toEqual([0, expect.stringContaining('added 1 devices')])
    expect(err).toContain('2 are in the registry already')
    put(JSON.stringify([{ serialNumber: 'SN-1', deviceToken: 'another-token' }]))
    const other = await importing()
    expect([other.code, other.out]).toEqual([
      3,
      expect.stringContaining('is in the registry already, with another token or thing name'),
    ])
  })

  it('changes nothing in a dry run, and says the same', async () => {
    put(JSON.stringify(table))
    const { code, out, err } = await importing('--dry-run', '--json')
    expect(code).toBe(3)
    const documents = out
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line))
    expect(documents).toEqual([
      { row: 3, deviceSerial: 'SN-1', reason: 'has the serial of row 1' },
      { row: 4, deviceSerial: 'SN-3', reason: 'has no token: nobody could claim it' },
      { row: 5, reason: expect.stringContaining('cannot be used') },
      {
        rows: 6,
        added: 3,
        unchanged: 0,
        notTaken: 3,
        spent: 1,
        disabled: 0,
        weak: 1,
        dryRun: true,
      },
    ])
    expect(err).toContain('would add 3 devices')
    expect((await workplace.device('list')).code).toBe(2)
  })

  it('imports nothing of a file that cannot be read to its end', async () => {
    put(JSON.stringify(table).slice(0, -1))
    const { code, out, err } = await importing()
    expect([code, out]).toEqual([2, ''])
    expect(err).toContain('export: the JSON breaks off after row 6')
    expect(err).toContain('hint: ')
    expect((await workplace.device('list')).code).toBe(2)
  })

  it('refuses a file that is not there, one without rows, and a format without the serial', async () => {
    put('[]', 'empty')
    const all: [string[], string][] = [
      [['nowhere'], 'cannot read nowhere: ENOENT'],
      [['.'], 'cannot read .: EISDIR'],
      [['empty'], 'there are no rows in empty'],
      [['empty', '--thing-name-format', 'thing'], 'has %DEVICE_UID% in it'],
      [['empty', '--policy', 'a b'], 'a policy name has'],
    ]
    for (const [words, said] of all) {
      const { code, err } = await workplace.run(['device', 'import', ...words])
      expect([code, err], words.join(' ')).toEqual([2, expect.stringContaining(said)])
    }
  })
})
