/**
 * The ways in which a session can be opened: two transports, two versions of MQTT. What a way cannot do
 * is a reason here, which becomes the title of a skip; `docs/aws-iot.md` explains each.
 */
import type { SessionOptions, Transport } from '@certvend/client'
import { openSession } from '@certvend/client/aws-iot'

export interface Way {
  readonly name: string
  readonly protocol: '3.1.1' | '5'
  readonly options: Pick<SessionOptions, 'protocol' | 'transport'>
  /** Why the code of a refusing CONNACK is not told. */
  readonly hidesConnack?: string
  /** Why a slow reader does not slow the server. */
  readonly readsAhead?: string
  /** Why a publish that the session's end left behind is sent anew, without DUP. */
  readonly resendsWithoutDup?: string
  /** Why a silent server is found within one and a half keep-alives, not within one. */
  readonly pingsLate?: string
  /** Why a certificate refused by an alert may look like a door closed without a reason. */
  readonly losesAlerts?: string
  /** Why a name in the common name only is believed. */
  readonly believesCommonName?: string
}

const way = (
  transport: [name: string, Transport | undefined],
  protocol: Way['protocol'],
  cannot: Partial<Way> = {},
): Way => ({
  name: `${transport[0]}, MQTT ${protocol}`,
  protocol,
  options: { protocol, ...(transport[1] ? { transport: transport[1] } : {}) },
  ...cannot,
})

const mqttJs: [string, undefined] = ['MQTT.js', undefined]
const sdk: [string, Transport] = ['aws-iot-device-sdk-v2', openSession]
const common = {
  pingsLate: 'the SDK pings once in a keep-alive',
  believesCommonName: 's2n falls back to the common name',
  losesAlerts: 'a reset behind the alert can overtake it (seen once in some thousand times)',
}
const noDup = { resendsWithoutDup: 'the SDK cannot be told to resume another connection’s packets' }

export const ways: readonly Way[] = [
  way(mqttJs, '3.1.1'),
  way(mqttJs, '5'),
  way(sdk, '3.1.1', {
    ...common,
    ...noDup,
    hidesConnack: 'the SDK does not tell the code of CONNACK under MQTT 3.1.1',
    readsAhead: 'the SDK acknowledges by itself under MQTT 3.1.1',
  }),
  way(sdk, '5', { ...common, ...noDup }),
]

/** For a title: nothing, or that the test is skipped and why. */
export const skipped = (reason: string | undefined): string =>
  reason === undefined ? '' : ` (skipped: ${reason})`
