/** Small text files that people put on the machine: read whole, or refused with a reason. */
import fs from 'node:fs'
import type { Sourced } from './config.ts'
import { configurationError } from './failure.ts'

const largestFile = 256 * 1024

export interface PlainFile {
  readonly text: string
  readonly found: fs.Stats
}

/**
 * Reads `file`, which `from` named as `what` ("the pin file"), or which nobody had to name: then `from`
 * is the file itself.
 *
 * @throws a configuration error when it is missing, unreadable, too large or not a plain file
 */
export function readPlainFile(what: string, { value: file, from }: Sourced): PlainFile {
  const named = `${from === file ? '' : `${from}: `}${what} ${file}`
  try {
    const descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
    try {
      const found = fs.fstatSync(descriptor)
      if (!found.isFile()) throw configurationError(`${named} is not a plain file`)
      if (found.size > largestFile) throw configurationError(`${named} is too large`)
      return { text: fs.readFileSync(descriptor, 'utf8'), found }
    } finally {
      fs.closeSync(descriptor)
    }
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException
    if (syscall === undefined) throw error
    if (code === 'ENOENT') throw configurationError(`${named} does not exist`)
    throw configurationError(`${named} cannot be read (${code})`)
  }
}
