/** The session suite against the broker of MiniStack, as `npm run test:aws` started it. */
import { createCredential, createEndpoint } from '@certvend/client'
import { address, fetchAnchors, makeThing, url } from '../ministack.ts'
import type { Broker } from '../session-suite/brokers.ts'
import { sessionsAgainst } from '../session-suite/sentences.ts'

const ministack: Broker = {
  name: "MiniStack's 8883",
  ...(url ? {} : { missing: 'npm run test:aws' }),
  copies: {
    '3.1.1': 'it sends a copy for each of them (MQTT 3.1.1 section 3.3.5)',
    '5': 'it sends a copy for each of them (MQTT 5 section 3.3.4)',
  },
  noPolicy: 'MiniStack enforces no IoT policy at its broker',
  async start() {
    const anchors = await fetchAnchors()
    return {
      async device(name) {
        const { thingName, certificatePem, privateKey } = await makeThing(`session-${name}`)
        return createCredential({
          thingName,
          certificateChain: certificatePem,
          privateKey,
          endpoint: createEndpoint(address, anchors),
        })
      },
      close: async () => {},
    }
  },
}

sessionsAgainst(ministack)
