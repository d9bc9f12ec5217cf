/** `certvend probe`: which dialect a vending machine speaks, found out without spending anything. */
import { type ProbeReport, probeVendingServer, type Trial } from '@certvend/client/probe'
import { readPin } from '../enrollment.ts'
import { configurationError, type ExitCode } from '../failure.ts'
import { proxyPlace } from '../proxy.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { stopOnSignals } from '../signals.ts'
import type { Terminal } from '../terminal.ts'

/** 0: recognised. 1: something answers, in no dialect that is known; or nothing does. */
export async function probe(
  url: string | undefined,
  flags: Flags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ExitCode> {
  const settings = await resolveSettings(flags, environment)
  proxyPlace(environment)
  const from = url === undefined ? settings.url?.from : 'URL'
  const asked = url ?? settings.url?.value
  if (asked === undefined)
    throw configurationError('no URL to probe', 'name it: certvend probe https://…')
  const plain = asked.startsWith('http:')
  if (settings.pins.length === 0 && !plain)
    throw configurationError(
      'no pin',
      'name it: --pin FILE; for an API Gateway of AWS it is Amazon Root CA 1 (https://www.amazontrust.com/repository/)',
    )
  const pins = plain ? [] : settings.pins.map(readPin)
  const { signal, release } = stopOnSignals()
  try {
    const report = await probeVendingServer(
      { url: asked, pins },
      {
        signal,
        onTry: ({ request }) => terminal.progress(`asking ${request} …`, { passing: true }),
      },
    )
    terminal.progress('', { passing: true })
    terminal.out(flags.json ? JSON.stringify(report, undefined, 2) : inWords(report))
    if (report.dialects.length > 0) return 0
    terminal.fail({
      exitCode: 1,
      message: 'no dialect was recognised',
      hint: 'check the URL with its path or stage; what answered is above',
    })
    return 1
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw configurationError(`${from}: ${error.message}`)
  } finally {
    release()
  }
}

const trialInWords = ({ request, status, answer }: Trial): string =>
  `  ${request.padEnd(24)}${status ?? 'no answer'}  ${answer}`

const inWords = ({ url, dialects, trials }: ProbeReport): string =>
  [
    dialects.length === 0
      ? `${url} speaks no dialect that is known`
      : `${url} seems to speak ${dialects.join(', ')}`,
    ...trials.map(trialInWords),
    ...(dialects.length === 0
      ? []
      : [`in agent.toml: ${dialects.map((name) => `dialect = "${name}"`).join(', or ')}`]),
  ].join('\n')
