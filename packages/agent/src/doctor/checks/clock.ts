/** The clock, which decides whether anything else can be judged. */
import { earliestPlausible } from '@certvend/client'
import type { Trace } from '@certvend/client/trace'
import { duration } from '../../wording.ts'
import type { Evidence } from '../evidence.ts'
import { type Check, type Finding, unknown } from '../finding.ts'

/** As far as the issuers' clocks may be from ours, in milliseconds. */
const toleranceMs = 5 * 60_000

const wrong = (found: string, expected: string): Finding => ({
  found,
  expected,
  mend: 'set the clock: timedatectl set-ntp true, then timedatectl and chronyc tracking tell; nothing was thrown away meanwhile',
  care: 'act',
})

/** How many who do not depend on each other have expired by this clock, in words. */
function expired({ now, credential, parts, vending, mqtt }: Evidence): string[] {
  const past = (date: Date): boolean => date < now
  const pins = (parts?.pins ?? []).flatMap(({ read }) => (read.ok ? read.value : []))
  const shown = (trace: Trace | undefined): boolean =>
    trace?.chain[0] !== undefined && past(trace.chain[0].notAfter)
  return [
    ...(credential && past(credential.notAfter) ? ["this device's certificate"] : []),
    ...(pins.length > 0 && pins.every(({ notAfter }) => past(notAfter)) ? ['every pin'] : []),
    ...(shown(vending) ? ["the vending server's certificate"] : []),
    ...(shown(mqtt) ? ["the MQTT server's certificate"] : []),
  ]
}

export const clock: Check = {
  name: 'clock',
  symptom: 'ERR_CLOCK, or everything has expired at once',
  looks:
    "Whether the clock can be right: not before this release was made, nor before what was issued began, nor apart from a verified server's, nor after all has expired at once.",
  advice:
    'Set it: `timedatectl set-ntp true`. A board without a battery clock needs the network for it, or a clock of its own. Nothing is thrown away meanwhile, and verification is never relaxed.',
  judge(evidence) {
    const { now, credential, vending, mqtt } = evidence
    const says = `this device's clock says ${now.toISOString().slice(0, 19)}Z`
    if (now < earliestPlausible)
      return wrong(
        says,
        `not before ${earliestPlausible.toISOString().slice(0, 10)}, when this release was made`,
      )
    if (credential && credential.notBefore.getTime() > now.getTime() + toleranceMs)
      return wrong(
        says,
        `not before ${credential.notBefore.toISOString()}, when the certificate began`,
      )
    for (const road of [vending, mqtt]) {
      if (road?.failure?.code !== 'ERR_CLOCK') continue
      const begins = road.chain[0]?.notBefore
      return wrong(
        `${says}, and the certificate of ${road.host} is not valid yet`,
        begins ? `not before ${begins.toISOString()}` : 'a clock that is right',
      )
    }
    const date = vending?.answer?.date
    if (date) {
      const aheadMs = now.getTime() - date.getTime()
      if (Math.abs(aheadMs) <= toleranceMs) return 'fine'
      return wrong(
        `${says}, ${duration(Math.abs(aheadMs))} ${aheadMs > 0 ? 'ahead of' : 'behind'} the verified vending server`,
        `${date.toISOString().slice(0, 19)}Z, as ${vending?.host} has it`,
      )
    }
    const over = expired(evidence)
    if (over.length >= 2)
      return wrong(
        `${says}; by it ${over.join(' and ')} have expired at once`,
        'a clock by which not everything has expired',
      )
    return over.length === 1 || credential || vending || mqtt
      ? 'fine'
      : unknown('nothing to compare it with')
  },
}
