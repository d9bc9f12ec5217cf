/** A file that the operator named, on the command line or in the environment. */
import { readFile } from 'node:fs/promises'
import { failure } from './failure.ts'

/** Reads its text. @throws Failure */
export async function readNamed(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    throw failure(2, `cannot read ${path}: ${code}`, 'check the path')
  }
}
