/** `certvend doctor`: what is wrong, the most likely cause first, and what to do about it. */
import { systemClock } from '@certvend/client'
import { type Diagnosis, diagnose, exitCodeOf } from '../doctor/diagnosis.ts'
import type { Evidence } from '../doctor/evidence.ts'
import { gather } from '../doctor/gather.ts'
import type { ExitCode } from '../failure.ts'
import type { Flags } from '../settings.ts'
import { stopOnSignals } from '../signals.ts'
import type { Terminal } from '../terminal.ts'
import { day } from '../wording.ts'

export async function doctor(
  flags: Flags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ExitCode> {
  const { signal, release } = stopOnSignals()
  try {
    const evidence = await gather(flags, {
      environment,
      clock: systemClock,
      signal,
      onStep: (step) => terminal.progress(`${step} …`, { passing: true }),
    })
    const diagnosis = diagnose(evidence)
    terminal.progress('', { passing: true })
    terminal.out(
      flags.json ? JSON.stringify(diagnosis, undefined, 2) : inWords(diagnosis, evidence),
    )
    return exitCodeOf(diagnosis)
  } finally {
    release()
  }
}

function inWords(diagnosis: Diagnosis, evidence: Evidence): string {
  const { findings, checks } = diagnosis
  const [cause, ...others] = findings
  const count = (outcome: string): number =>
    checks.filter((check) => check.outcome === outcome).length
  const told = `${count('fine')} checks found nothing wrong, ${count('unknown') + count('skipped')} could not be made; --json lists them`
  if (!cause) return `${wellBeing(evidence)}\n${told}`
  return [
    `most likely cause: ${cause.found}`,
    ...details(cause),
    ...others.flatMap((finding) => ['', `also: ${finding.found}`, ...details(finding)]),
    '',
    told,
  ].join('\n')
}

const details = ({ expected, mend, check, docs }: Diagnosis['findings'][number]): string[] => [
  `  check     ${check}`,
  `  expected  ${expected}`,
  `  do this   ${mend}`,
  `  more      ${docs}`,
]

/** What goes before "nothing is wrong": what was looked at. */
function wellBeing({ credential, daemon, mqtt, trial, vending }: Evidence): string {
  const live = daemon?.status?.live
  const who = credential?.thingName ?? daemon?.status?.credential?.thingName
  const anchor = (mqtt ?? vending)?.vouchedBy
  const vouched = anchor ? `, vouched for by ${anchor.subject}` : ''
  if (live?.connection === 'online') return `healthy: online as ${who}${vouched}`
  if (trial?.outcome === 'opened')
    return `healthy: the broker takes ${who}${vouched}; the agent does not run`
  if (credential)
    return `healthy, as far as can be told: ${who} has a certificate until ${day(credential.notAfter)}${vouched}`
  return `ready to enroll: ${vending?.host} answers as a vending machine${vouched}; certvend run asks for the certificate`
}
