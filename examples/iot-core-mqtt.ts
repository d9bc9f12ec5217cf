/**
 * IoT Core, or any broker that knows this certificate, over MQTT.js, the default transport:
 *
 *     node iot-core-mqtt.js abc-ats.iot.eu-west-1.amazonaws.com THING_NAME device.pem key.pem
 *
 * Connects with the thing name as client id, subscribes to `certvend/THING_NAME/#`, publishes one
 * message there and ends when it has come back. The policy must allow that; `host:443` goes through
 * firewalls that only know the web.
 */
import { connect } from '@certvend/client'
import { main, readIdentity } from './identity.ts'

await main(async () => {
  const credential = await readIdentity('iot-core-mqtt')
  const session = await connect(credential)
  const messages = await session.subscribe(`certvend/${session.thingName}/#`)
  await session.publish(`certvend/${session.thingName}/hello`, `hello from ${session.thingName}`)
  for await (const { topic, payload } of messages) {
    console.log(`${topic}: ${Buffer.from(payload)}`)
    break
  }
  await session.close()
})
