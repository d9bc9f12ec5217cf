/**
 * A certificate that AWS has never seen, of a CA that it knows: just-in-time registration or
 * provisioning. The device has nothing to do for it but to come back:
 *
 *     node jitr.js ENDPOINT THING_NAME device-and-ca.pem key.pem
 *
 * The first connection registers the certificate and is closed without a word. Until a rule's function
 * (JITR) or the CA's template (JITP) has activated it, so are the next; then the session opens. The
 * certificate file holds the device's certificate and, after it, the CA's.
 */
import { stayConnected } from '@certvend/client'
import { main, readIdentity } from './identity.ts'

await main(async () => {
  const credential = await readIdentity('jitr')
  const loop = stayConnected(credential, {
    onRetry: ({ error, waitMs }) =>
      console.log(`${error.message}; again in ${(waitMs / 1000).toFixed(1)} s`),
  })
  for await (const session of loop) {
    await session.publish(`certvend/${session.thingName}/hello`, 'registered, active, online')
    console.log(`${session.thingName} is online`)
    break
  }
})
