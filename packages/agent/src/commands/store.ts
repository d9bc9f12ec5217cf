/** `certvend store check`: what a support engineer runs on a state directory. */
import { inspectStore, type StoreReport } from '@certvend/client'
import type { ExitCode } from '../failure.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import type { Terminal } from '../terminal.ts'

/** 0: a whole credential, safely kept. 1: none yet. 3: a person must act. */
export async function storeCheck(
  directory: string | undefined,
  flags: Flags,
  terminal: Terminal,
): Promise<ExitCode> {
  const report = inspectStore(directory ?? (await resolveSettings(flags)).stateDirectory)
  const { problem } = report
  const failure = problem && {
    code: problem.code,
    remedy: problem.remedy,
    message: problem.message,
    hint: problem.hint,
  }
  if (flags.json) terminal.out(JSON.stringify({ ...report, problem: failure }, undefined, 2))
  else terminal.out(inWords(report).join('\n'))
  if (problem || report.exposed.length > 0 || report.fileSystem?.suitable === false) return 3
  return report.verdict === 'whole' ? 0 : 1
}

const verdicts = {
  whole: 'whole: a credential is in use',
  requested: 'a key is made and no certificate has come yet',
  empty: 'empty: no credential yet',
  refused: 'refused: opening it fails',
} as const

function inWords(report: StoreReport): string[] {
  const { fileSystem, lockedBy, problem } = report
  const suits =
    fileSystem?.suitable === undefined
      ? ''
      : fileSystem.suitable
        ? ', which can hold a store'
        : ', which cannot hold a store'
  return [
    `directory    ${report.directory}${report.exists ? '' : ' (not there yet)'}`,
    `verdict      ${verdicts[report.verdict]}`,
    ...(problem
      ? [`problem      ${problem.message} (${problem.code})`, `hint         ${problem.hint}`]
      : []),
    ...(fileSystem
      ? [
          `file system  ${fileSystem.type}${fileSystem.readOnly ? ', mounted read-only' : ''}${suits}`,
        ]
      : []),
    `writer       ${lockedBy === undefined ? 'none' : lockedBy === 0 ? 'another process' : `process ${lockedBy}`}`,
    ...report.generations.map((one) => {
      const named = one.links.length > 0 ? ` (${one.links.join(', ')})` : ''
      const what =
        one.state === 'issued'
          ? `${one.thingName}, until ${one.notAfter?.toISOString()}, key made by the ${one.keyOrigin}`
          : (one.reason ?? 'a key, no certificate')
      return `generation   ${one.number} ${one.state}${named}: ${what}`
    }),
    ...report.exposed.map((name) => `exposed      ${name}: group or others may read it`),
    ...(report.wouldMend.length > 0
      ? report.wouldMend.map((mending) => `opening      would ${mending}`)
      : report.verdict === 'refused'
        ? []
        : ['opening      changes nothing']),
  ]
}
