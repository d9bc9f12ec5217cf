/** What the functions are made of, from what their environment says. Nothing is asked of AWS here. */
import { type Clock, systemClock } from '../clock.ts'
import { createAwsIotIssuer } from '../issuer/aws-iot.ts'
import { type Iot, openIot } from '../issuer/iot-client.ts'
import type { EventTools } from '../issuer/iot-events.ts'
import { iotRates } from '../issuer/iot-quotas.ts'
import { jsonLog, type Log } from '../log.ts'
import { createRateGate, type RateGate } from '../rate-gate.ts'
import { openDynamodbRegistry } from '../registry/dynamodb.ts'
import type { Registry } from '../registry/registry.ts'
import { readSettings, type Settings } from './settings.ts'

export interface Parts {
  readonly settings: Settings
  readonly registry: Registry
  readonly iot: Iot
  /** For this instance of the function; AWS's own word for "too much" holds for all of them. */
  readonly gate: RateGate
  readonly clock: Clock
  readonly log: Log
}

/** One line of JSON per event, into the function's log. */
export const functionLog: Log = jsonLog((line) => void process.stdout.write(line), systemClock)

/** @throws Error if the environment is not one of the template's */
export function openParts(environment: NodeJS.ProcessEnv = process.env): Parts {
  const settings = readSettings(environment)
  const clock = systemClock
  const gate = createRateGate({ rates: iotRates })
  return {
    settings,
    registry: openDynamodbRegistry(settings.registry),
    iot: openIot({ clock, gate }),
    gate,
    clock,
    log: functionLog,
  }
}

/**
 * What handles AWS IoT's events. Whoever signs, certificates are let in and taken out in the same way, and
 * no key of a CA is needed for that.
 */
export function eventTools({ settings, registry, iot, clock, log }: Parts): EventTools {
  const issuer = createAwsIotIssuer({ iot, policyName: settings.policyName })
  return { registry, issuer, clock, log }
}
