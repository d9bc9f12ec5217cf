/** Rows out of a file: JSON of the AWS CLI, CSV, or a dump of mysqldump, told apart by how it begins. */
import { createReadStream } from 'node:fs'
import { open } from 'node:fs/promises'
import { type Chunks, type Rows, unreadable } from './table.ts'

const headBytes = 4096

/** Reads the rows of the file `path`. Rejects with the system's error where it cannot be opened. */
export async function* readRows(path: string): Rows {
  const head = await readHead(path)
  const encoding = judgeEncoding(head)
  const text = new TextDecoder(encoding).decode(head)
  const read = await readerFor(text)
  yield* read(decode(path, encoding))
}

/** Each with its library, which nobody else has to wait for. */
async function readerFor(head: string): Promise<(chunks: Chunks) => Rows> {
  if (/^\s*[[{]/.test(head)) return (await import('./json.ts')).readJson
  if (/^\s*(?:--|\/\*|#|(?:CREATE|INSERT|DROP|LOCK|USE|SET)\s)/i.test(head))
    return (await import('./sql.ts')).readSql
  if (head.trim() === '') throw unreadable('the file is empty')
  return (await import('./csv.ts')).readCsv
}

async function readHead(path: string): Promise<Buffer> {
  const file = await open(path, 'r')
  try {
    const { buffer, bytesRead } = await file.read(Buffer.alloc(headBytes), 0, headBytes, 0)
    return buffer.subarray(0, bytesRead)
  } finally {
    await file.close()
  }
}

/** PowerShell writes UTF-16 where it is told to write into a file. */
function judgeEncoding(head: Buffer): 'utf-8' | 'utf-16le' {
  if (head[0] === 0x1f && head[1] === 0x8b)
    throw unreadable('the file is compressed', 'decompress it first: gunzip FILE')
  return head[0] === 0xff && head[1] === 0xfe ? 'utf-16le' : 'utf-8'
}

async function* decode(path: string, encoding: 'utf-8' | 'utf-16le'): Chunks {
  const decoder = new TextDecoder(encoding, { fatal: true })
  const piece = (bytes?: Buffer): string => {
    try {
      return bytes ? decoder.decode(bytes, { stream: true }) : decoder.decode()
    } catch {
      throw unreadable(`the file is not ${encoding.toUpperCase()}`, 'convert it: iconv -t UTF-8')
    }
  }
  for await (const bytes of createReadStream(path)) yield piece(bytes as Buffer)
  yield piece()
}
