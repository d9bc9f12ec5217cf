/** `certvend import-token`: gets a token off the boot partition, where everybody reads it. */
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { systemClock } from '@certvend/client'
import { dialectName } from '../dialect.ts'
import type { ExitCode } from '../failure.ts'
import { openLog } from '../log.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import type { Terminal } from '../terminal.ts'
import { bootTokens, importToken, keepToken } from '../token.ts'

export async function importTokenFrom(
  file: string | undefined,
  flags: Flags,
  terminal: Terminal,
): Promise<ExitCode> {
  const settings = await resolveSettings(flags)
  const { stateDirectory } = settings
  const dialect = dialectName(settings.dialect)
  const json = flags.json === true || !terminal.interactive
  const log = openLog((line) => terminal.out(line), { json, clock: systemClock })
  if (file === '-') {
    const given = await text(process.stdin)
    if (!(await keepToken(given, { path: 'stdin', stateDirectory, log, dialect }))) return 3
    log({ event: 'token.imported', path: 'stdin' })
    return 0
  }
  const files = file === undefined ? bootTokens : [path.resolve(file)]
  return (await importToken(files, { stateDirectory, log, dialect })) === 'left' ? 3 : 0
}
