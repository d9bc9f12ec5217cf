/** The job with Certvend: an identity on first boot, then one acknowledged message. */
import {
  connect,
  createClaim,
  createVendingServer,
  ensureCredential,
  openCredentialStore,
} from '@certvend/client'

const { vendingUrl, pins, deviceSerial, token, directory } = JSON.parse(process.argv[2] as string)

const store = await openCredentialStore(directory)
const vendingServer = createVendingServer({ url: vendingUrl, pins })
const claim = createClaim({ deviceSerial, token })
const credential = await ensureCredential(store, vendingServer, claim)
const session = await connect(credential)
await session.publish(`boot/${credential.thingName}`, 'up')
console.log('done')
await session.close()
store.close()
