/**
 * The function behind the topic rule on `$aws/events/presence/connected/<clientId>`: the first session of a
 * new certificate retires the one before it. What is lost is found by the sweep.
 */
import { handlePresence } from '../issuer/iot-events.ts'
import { eventTools, functionLog, openParts } from './parts.ts'
import { start } from './start.ts'

export const handler = await start(async () => {
  const tools = eventTools(openParts())
  return (event) => handlePresence(event, tools)
}, functionLog)
