/**
 * `…/shadow` of awslabs 2020: a thing's shadow over HTTPS, for devices that had no MQTT yet. GET gives
 * what the device reported; PUT sets what is desired, from the body and, under it, the query.
 *
 * Only where there is a shadow service to ask. The token and the serial that the caller was known by
 * are never written into the shadow.
 */
import type { Authenticate } from '../authentication.ts'
import { read2020, refuse2020 } from './awslabs-2020.ts'
import { json, type LegacyAnswer, type LegacyRequest, members } from './dialect.ts'

/** The shadow service, by thing name. */
export interface Shadows {
  /** `state.reported`; undefined if the thing has no shadow. */
  reported(thingName: string): Promise<Readonly<Record<string, unknown>> | undefined>
  /** Sets members of `state.desired`. @returns `state.desired` of the answer */
  desire(
    thingName: string,
    desired: Readonly<Record<string, unknown>>,
  ): Promise<Readonly<Record<string, unknown>>>
}

export const shadowPath = '/shadow'

export type AnswerShadow = (request: LegacyRequest, remoteAddress: string) => Promise<LegacyAnswer>

/** Rejects with the error of the registry or of the shadow service. */
export function createAnswerShadow(shadows: Shadows, authenticate: Authenticate): AnswerShadow {
  return async (request, remoteAddress) => {
    const { method, query, body } = request
    if (method !== 'GET' && method !== 'PUT') return refuse2020('method-not-allowed')
    const asked = read2020(request)
    if (!asked) return refuse2020('malformed-request')
    const known = await authenticate({ ...asked, remoteAddress })
    if (!known.ok) return refuse2020(known.problem.code)
    const { thingName, disabled } = known.device
    if (disabled) return refuse2020('device-disabled')
    if (method === 'GET') return json(200, (await shadows.reported(thingName)) ?? {}, '\t')
    const {
      serialNumber: _,
      deviceToken: __,
      ...desired
    } = {
      ...Object.fromEntries(query),
      ...members(body),
    } as Record<string, unknown>
    return json(200, await shadows.desire(thingName, desired), '\t')
  }
}
