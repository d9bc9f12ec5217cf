/**
 * A private key in a PKCS#11 token. The operator made it there (docs/pkcs11.md); this asks for a
 * certificate with it, and connects:
 *
 *     KEY='pkcs11:token=gateway;object=device?module-path=/usr/lib/MODULE.so&pin-source=file:/etc/certvend/pin'
 *     node hardware-key.js request "$KEY" THING_NAME > device.csr
 *     aws iot create-certificate-from-csr --set-as-active --query certificatePem --output text \
 *       --certificate-signing-request file://device.csr > device.pem
 *     node hardware-key.js abc-ats.iot.eu-west-1.amazonaws.com THING_NAME device.pem "$KEY"
 *
 * With a vending machine of ours the first half is `ensureCredential(store, server, claim, { key })`.
 */
import { readFileSync } from 'node:fs'
import { connect, createCredential, createEndpoint, openPkcs11Key } from '@certvend/client'
import { openSession } from '@certvend/client/aws-iot'
import { createCertificationRequest } from '@certvend/client/csr'
import { main, readArguments } from './identity.ts'

const { positionals, anchors } = readArguments()
const [first, second, third, fourth] = positionals
const asks = first === 'request' && second && third && !fourth
if (!asks && !fourth) {
  console.error(`usage: node hardware-key.js request KEY_URI THING_NAME
       node hardware-key.js [--anchors CA.pem] ENDPOINT THING_NAME CERTIFICATE.pem KEY_URI`)
  process.exit(2)
}

await main(async () => {
  if (asks) {
    process.stdout.write(await createCertificationRequest(await openPkcs11Key(second), third))
    return
  }
  const credential = createCredential({
    thingName: second as string,
    certificateChain: readFileSync(third as string, 'utf8'),
    privateKey: await openPkcs11Key(fourth as string),
    endpoint: createEndpoint(first as string, anchors),
  })
  const session = await connect(credential, { transport: openSession })
  await session.publish(`certvend/${session.thingName}/hello`, 'signed in the token')
  await session.close()
  console.log(`${session.thingName} published with a key in its token`)
})
