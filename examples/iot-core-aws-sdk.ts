/**
 * IoT Core, or any broker that knows this certificate, over AWS's own SDK instead of MQTT.js:
 *
 *     npm install aws-iot-device-sdk-v2
 *     node iot-core-aws-sdk.js abc-ats.iot.eu-west-1.amazonaws.com THING_NAME device.pem key.pem
 *
 * Does the same as `iot-core-mqtt`; only the transport is another. MQTT 3.1.1, which every broker
 * speaks; with IoT Core `protocol: '5'` tells more. See `hardware-key` for what the SDK is here for.
 */
import { connect } from '@certvend/client'
import { openSession } from '@certvend/client/aws-iot'
import { main, readIdentity } from './identity.ts'

await main(async () => {
  const credential = await readIdentity('iot-core-aws-sdk')
  const session = await connect(credential, { transport: openSession })
  const messages = await session.subscribe(`certvend/${session.thingName}/#`)
  await session.publish(`certvend/${session.thingName}/hello`, `hello from ${session.thingName}`)
  for await (const { topic, payload } of messages) {
    console.log(`${topic}: ${Buffer.from(payload)}`)
    break
  }
  await session.close()
})
