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
 * Reads `file`, which `from` named as `what` ("the pin file").
 *
 * @throws a configuration error when it is missing, unreadable, too large or not a plain file
 */
export function readPlainFile(what: string, { value: file, from }: Sourced): PlainFile {
  try {
    const descriptor = fs.openSync(file, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
    try {
      const found = fs.fstatSync(descriptor)
      if (!found.isFile()) throw configurationError(`${from}: ${what} ${file} is not a plain file`)
      if (found.size > largestFile)
        throw configurationError(`${from}: ${what} ${file} is too large`)
      return { text: fs.readFileSync(descriptor, 'utf8'), found }
    } finally {
      fs.closeSync(descriptor)
    }
  } catch (error) {
    const { code, syscall } = error as NodeJS.ErrnoException
    if (syscall === undefined) throw error
    if (code === 'ENOENT') throw configurationError(`${from}: ${what} ${file} does not exist`)
    throw configurationError(`${from}: cannot read ${what} ${file} (${code})`)
  }
}
