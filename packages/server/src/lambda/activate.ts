/**
 * The function behind the topic rule on `$aws/events/certificates/registered/<caCertificateId>`: just-in-time
 * registration. What fails is repeated by Lambda, and by AWS IoT at the device's next connect.
 */
import { handleRegistered } from '../issuer/iot-events.ts'
import { eventTools, functionLog, openParts } from './parts.ts'
import { start } from './start.ts'

export const handler = await start(async () => {
  const tools = eventTools(openParts())
  return (event) => handleRegistered(event, tools)
}, functionLog)
