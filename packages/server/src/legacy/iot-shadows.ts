/** AWS IoT's device shadows, for the old `…/shadow`; the only importer of the data plane's client. */
import {
  GetThingShadowCommand,
  IoTDataPlaneClient,
  ResourceNotFoundException,
  UpdateThingShadowCommand,
} from '@aws-sdk/client-iot-data-plane'
import { second } from '../clock.ts'
import type { Shadows } from './shadow.ts'

/** Where the SDK's environment says, such as `AWS_REGION`. Nothing is sent yet. */
export function openShadows(): Shadows {
  const client = new IoTDataPlaneClient({
    maxAttempts: 3,
    requestHandler: { connectionTimeout: 3 * second, requestTimeout: 10 * second },
  })
  const waiting = () => ({ abortSignal: AbortSignal.timeout(15 * second) })
  return {
    async reported(thingName) {
      try {
        const command = new GetThingShadowCommand({ thingName })
        const { payload } = await client.send(command, waiting())
        return stateIn(payload).reported ?? {}
      } catch (error) {
        if (error instanceof ResourceNotFoundException) return undefined
        throw error
      }
    },
    async desire(thingName, desired) {
      const command = new UpdateThingShadowCommand({
        thingName,
        payload: Buffer.from(JSON.stringify({ state: { desired } })),
      })
      const { payload } = await client.send(command, waiting())
      return stateIn(payload).desired ?? {}
    },
  }
}

interface State {
  readonly reported?: Readonly<Record<string, unknown>>
  readonly desired?: Readonly<Record<string, unknown>>
}

/** The `state` of a shadow document. */
const stateIn = (payload: Uint8Array | undefined): State =>
  (JSON.parse(Buffer.from(payload ?? []).toString() || '{}') as { state?: State }).state ?? {}
