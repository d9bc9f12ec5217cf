/** `certvend init`: a few questions, each answer tried, and then the configuration, written as a whole. */
import fs from 'node:fs'
import path from 'node:path'
import { readConfig } from '../config.ts'
import { exitCodeFor } from '../doctor/diagnosis.ts'
import { attempt } from '../doctor/local.ts'
import { configurationError, type ExitCode } from '../failure.ts'
import { askAll, isRefused, type Told } from '../init/answers.ts'
import { type Draft, draftText, tokenFile, writeDraft } from '../init/draft.ts'
import { type Ends, isStopped, openQuestions } from '../init/questions.ts'
import { proxyPlace } from '../proxy.ts'
import { type Flags, gatewayPlaces } from '../settings.ts'
import type { Terminal } from '../terminal.ts'

export interface InitFlags extends Flags {
  readonly replace?: boolean
}

/** @throws a configuration error; with nobody at the terminal, also for what was not given */
export async function init(
  flags: InitFlags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
  ends: Ends = { input: process.stdin, output: process.stderr },
): Promise<ExitCode> {
  const attended = ends.input.isTTY === true && ends.output.isTTY === true
  const file = path.resolve(flags.config ?? gatewayPlaces.config)
  if (!attended) refuseUnattended(flags)
  proxyPlace(environment)
  refuseUnwritable(file)
  const questions = attended ? openQuestions(ends) : undefined
  const told = { flags, terminal, environment, questions }
  try {
    if (!(await mayReplace(file, flags.replace === true, told))) return 1
    const draft = await askAll(file, told)
    terminal.progress(`\n${draftText(draft).trimEnd()}\n`)
    if (questions && !(await questions.confirm(`write this to ${file}?`, true))) {
      terminal.progress('nothing was written')
      return 1
    }
    for (const written of writeDraft(draft)) terminal.out(`wrote ${written}`)
    terminal.progress(nextStep(draft))
    return 0
  } catch (error) {
    if (isStopped(error)) {
      terminal.fail({ exitCode: 1, message: error.message })
      return 1
    }
    if (!isRefused(error)) throw error
    const { found, mend, finding } = error.refusal
    const exitCode = finding ? exitCodeFor(finding.care) : 2
    terminal.fail({
      exitCode,
      message: found,
      hint: mend,
      ...(finding ? { docs: finding.docs } : {}),
    })
    return exitCode
  } finally {
    questions?.close()
  }
}

function refuseUnattended({ server, pin, tokenFile: token }: InitFlags): void {
  const missing = [
    ...(server === undefined ? ['--server URL'] : []),
    ...(pin === undefined ? ['--pin FILE'] : []),
    ...(token === undefined ? ['--token-file FILE'] : []),
  ]
  if (missing.length > 0)
    throw configurationError(
      'init asks questions, and nobody is at a terminal here to answer them',
      `give it all: certvend init ${missing.join(' ')}, and --serial SERIAL unless it is the board's own`,
    )
}

function refuseUnwritable(file: string): void {
  let directory = path.dirname(file)
  while (!fs.existsSync(directory)) directory = path.dirname(directory)
  try {
    fs.accessSync(directory, fs.constants.W_OK)
  } catch (error) {
    throw configurationError(
      `cannot write to ${directory} (${(error as NodeJS.ErrnoException).code})`,
      'run it as root, or name another place: --config FILE',
    )
  }
}

/** What holds comments alone, such as the package's own, is no loss. */
async function mayReplace(
  file: string,
  asked: boolean,
  { questions, terminal }: Told,
): Promise<boolean> {
  if (!fs.existsSync(file) || asked) return true
  const read = attempt(() => readConfig(file))
  const empty = read.ok && !read.value.url && !read.value.pins && !read.value.serial
  if (empty) return true
  if (!questions) throw configurationError(`${file} is there already`, 'to replace it: --replace')
  if (await questions.confirm(`${file} is there already; replace it?`, false)) return true
  terminal.progress('nothing was written')
  return false
}

function nextStep(draft: Draft): string {
  const token =
    draft.token === undefined
      ? `put the token into ${tokenFile(draft)} (mode 0600), then: `
      : 'next: '
  return draft.file === gatewayPlaces.config
    ? `${token}systemctl restart certvend, and certvend doctor if it does not come online`
    : `${token}certvend run --config ${draft.file}, or certvend doctor --config ${draft.file}`
}
