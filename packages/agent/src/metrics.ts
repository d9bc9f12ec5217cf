/**
 * A Prometheus text file (exposition format 0.0.4), for the textfile collector of node_exporter: replaced
 * as a whole when something in it differs, and never by a timer, so that online it is not written at
 * all. By default it lies in the runtime directory, which is memory.
 */
import { type Credential, renewalDue } from '@certvend/client'
import { publishFile } from '@certvend/client/durable'
import type { LiveDocument } from './live.ts'

const escaped = (text: string): string =>
  text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')

const seconds = (instant: Date): string => String(Math.round(instant.getTime() / 1000))

/** The file's text. Names are stable. */
export function metricsText(live: LiveDocument, credential: Credential | undefined): string {
  const rows: [name: string, type: 'gauge' | 'counter', help: string, value: string | undefined][] =
    [
      [
        'online',
        'gauge',
        'Whether an MQTT session is open.',
        live.connection === 'online' ? '1' : '0',
      ],
      [
        'connection_changed_timestamp_seconds',
        'gauge',
        'Since when it is online, or is not.',
        seconds(new Date(live.since)),
      ],
      ['sessions_total', 'counter', 'Sessions opened since the start.', String(live.sessions)],
      [
        'failed_attempts',
        'gauge',
        'Attempts that came to nothing, in a row.',
        String(live.failedInARow),
      ],
      [
        'certificate_not_after_timestamp_seconds',
        'gauge',
        'When the certificate ends.',
        credential && seconds(credential.notAfter),
      ],
      [
        'certificate_renewal_due_timestamp_seconds',
        'gauge',
        'When the certificate should be renewed.',
        credential && seconds(renewalDue(credential)),
      ],
      [
        'renewal_failed_attempts',
        'gauge',
        'Renewals that came to nothing, in a row.',
        String(live.renewal?.failedInARow ?? 0),
      ],
    ]
  const labels = [
    ['version', live.version],
    ['connection', live.connection],
    ['problem', live.problem?.code ?? ''],
    ['device_serial', credential?.deviceSerial ?? ''],
    ['thing_name', credential?.thingName ?? ''],
  ].map(([name, value = '']) => `${name}="${escaped(value)}"`)
  return [
    ...rows.flatMap(([name, type, help, value]) =>
      value === undefined
        ? []
        : [
            `# HELP certvend_${name} ${help}`,
            `# TYPE certvend_${name} ${type}`,
            `certvend_${name} ${value}`,
          ],
    ),
    '# HELP certvend_info Who this is, and what is wrong.',
    '# TYPE certvend_info gauge',
    `certvend_info{${labels.join(',')}} 1`,
    '',
  ].join('\n')
}

/**
 * Keeps the file: call what it returns with each new state of things.
 *
 * @param onFailure told once in a row: a file that cannot be written stops nothing
 */
export function keepMetrics(
  file: string,
  onFailure: (error: Error) => void,
): (text: string) => void {
  let written = ''
  let failed = false
  return (text) => {
    if (text === written) return
    try {
      publishFile(file, text)
      written = text
      failed = false
    } catch (error) {
      if (!failed) onFailure(error as Error)
      failed = true
    }
  }
}
