/**
 * One message with the identity that this gateway already has:
 *
 *     node connect.js STATE_DIRECTORY TOPIC MESSAGE
 *
 * Reads the credential store (readers take no lock), connects with MQTT over mutual TLS, waits until
 * the server has acknowledged, and leaves. The client id is the thing name, and a server holds one
 * session per client id: a running agent is asked to make room and comes back by itself.
 */
import { connect, isCertvendError, openCredentialStore } from '@certvend/client'

const [directory, topic, message] = process.argv.slice(2)
if (!directory || !topic || message === undefined) {
  console.error('usage: node connect.js STATE_DIRECTORY TOPIC MESSAGE')
  process.exit(2)
}

try {
  const store = await openCredentialStore(directory, { readOnly: true })
  const credential = store.current()
  if (!credential) throw new Error(`no credential in ${store.directory}; run: certvend enroll`)
  const session = await connect(credential)
  await session.publish(topic, message)
  await session.close()
  console.log(`${credential.thingName} published ${message.length} characters to ${topic}`)
} catch (error) {
  console.error(error instanceof Error ? error.message : String(error))
  if (isCertvendError(error)) console.error(`hint: ${error.hint}`)
  process.exitCode = 1
}
