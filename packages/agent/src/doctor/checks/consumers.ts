/** The check of the programs that are given a copy of key and certificate. */
import { isWell, resultInWords } from '../../consumers.ts'
import { type Check, unknown } from '../finding.ts'

export const consumers: Check = {
  name: 'consumers',
  symptom: 'A program was not given the certificate, or is not well with it',
  looks:
    'What the last round of `certvend consumers run` came to, for each of the `[[consumers]]`.',
  advice:
    'The reason names the program and how it ended; `journalctl -u certvend-consumers` has the round. Once it is mended: `systemctl start certvend-consumers`. See [docs/consumers.md](consumers.md).',
  judge({ settings, handedOn }) {
    if (!settings.ok) return unknown('the configuration cannot be read')
    const names = new Set(settings.value.consumers.map(({ name }) => name))
    if (names.size === 0) return unknown('no [[consumers]] are configured')
    if (!handedOn) return unknown('nothing was handed on since this machine started')
    const sick = handedOn.consumers.find((one) => names.has(one.name) && !isWell(one))
    if (!sick) return 'fine'
    return {
      found: resultInWords(sick),
      expected: 'every consumer well with the certificate in use',
      mend: 'once its reason is mended: systemctl start certvend-consumers',
      care: 'act',
    }
  },
}
