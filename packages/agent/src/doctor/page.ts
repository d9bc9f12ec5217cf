/**
 * docs/troubleshooting.md, by symptom, made from the table that doctor works by, so that they cannot
 * disagree.
 *
 * Not part of the command: `npm run test:doctor -- --tables` writes it, a test compares it.
 */
import { checks } from './table.ts'

/** What stands before the measured part, which `npm run test:doctor` writes. */
export function troubleshootingPage(measured: string): string {
  const index = checks.map(({ name, symptom }) => `| ${symptom} | [${name}](#${name}) |`)
  const sections = checks.map(({ name, symptom, looks, advice, after = [] }) =>
    [
      `## ${name}`,
      '',
      `*${symptom}.*`,
      '',
      looks,
      '',
      advice,
      ...(after.length > 0
        ? ['', `Not looked at when one of these is wrong: ${after.map(link).join(', ')}.`]
        : []),
      '',
    ].join('\n'),
  )
  return `# Troubleshooting

    certvend doctor
    certvend explain

\`doctor\` says what is wrong now, the most likely cause first, what was expected, and what to do; \`explain\` says since
when, and what else happened then. Neither changes anything. \`doctor\` sends no token and asks for no certificate; where
the agent runs it leaves it its connection, and where it does not, it connects once as this device and says goodbye on
the status topic. It takes half a minute at most.

Run it as root, or as the agent's user. Its exit code is that of the most likely cause: 0 nothing is wrong, 1 it passes by
itself, 2 a setting, 3 a person must act. \`--json\` lists every check with its outcome: fine, wrong, unknown (and why), or
skipped, because of what another check has found.

Every error's code has a section in [errors.md](errors.md); networks have a page of their own,
[getting-through.md](getting-through.md).

| what you see | check |
| --- | --- |
${index.join('\n')}

${sections.join('\n')}
## What was measured

Each fault below was put in from outside, by files, processes, servers, networks and clocks, before the real command was
run; the list was written before the command was. \`npm run test:doctor\` does it again.

<!-- faults: made by npm run test:doctor -- --tables -->
${measured}
<!-- /faults -->
`
}

const link = (name: string): string => `[${name}](#${name})`

/** The measured part of a page. */
export const measuredPart = (page: string): string =>
  /<!-- faults: [^\n]*-->\n([\s\S]*)\n<!-- \/faults -->/.exec(page)?.[1] ?? ''
