/**
 * AWS IoT Fleet Provisioning, by claim or by trusted user, and then a message:
 *
 *     node fleet-provisioning.js ENDPOINT STATE_DIRECTORY TEMPLATE SERIAL claim.pem claim-key.pem
 *     node fleet-provisioning.js ENDPOINT STATE_DIRECTORY TEMPLATE SERIAL provisioning-claim.json
 *
 * The second form takes what `aws iot create-provisioning-claim` answered to the installer, valid for
 * five minutes. The template gets the parameter SerialNumber. The key is made here; run it again and
 * it only reads. The claim's policy must allow `$aws/certificates/create-from-csr/*`.
 */
import { readFileSync } from 'node:fs'
import { createEndpoint, openCredentialStore, stayConnected } from '@certvend/client'
import {
  createFleetClaim,
  createProvisioningTemplate,
  ensureCredentialByTemplate,
  readProvisioningClaim,
} from '@certvend/client/fleet-provisioning'
import { main, readArguments } from './identity.ts'

await main(async () => {
  const { positionals, anchors } = readArguments()
  const [address, directory, name, deviceSerial, claimFile, keyFile] = positionals
  if (!address || !directory || !name || !deviceSerial || !claimFile) {
    console.error(
      'usage: node fleet-provisioning.js [--anchors CA.pem] ENDPOINT STATE_DIRECTORY TEMPLATE SERIAL CLAIM.pem KEY.pem | CLAIM.json',
    )
    process.exit(2)
  }
  const endpoint = createEndpoint(address, anchors)
  const template = createProvisioningTemplate({ endpoint, name })
  const text = readFileSync(claimFile, 'utf8')
  const claim = keyFile
    ? createFleetClaim({
        deviceSerial,
        certificateChain: text,
        privateKey: readFileSync(keyFile, 'utf8'),
      })
    : readProvisioningClaim(text, deviceSerial)

  const store = await openCredentialStore(directory)
  const known = store.current() !== undefined
  await ensureCredentialByTemplate(store, template, claim, {
    log: (line) => {
      if (line.event === 'enroll.retry') console.error(`${line.error.message}; again soon`)
    },
    onConfiguration: (configuration) => console.log('configuration', configuration),
  })
  for await (const session of stayConnected(store)) {
    await session.publish(`certvend/${session.thingName}/hello`, 'provisioned')
    console.log(`${known ? 'known' : 'enrolled'} as ${session.thingName}, and online`)
    break
  }
  store.close()
})
