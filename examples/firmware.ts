/**
 * A device's firmware: an identity on first boot, then a reading every few seconds, for ever.
 *
 * Settings come from the environment: CERTVEND_URL, CERTVEND_PINS (a PEM file), CERTVEND_SERIAL,
 * CERTVEND_TOKEN_FILE, STATE_DIRECTORY; READINGS ends it after so many.
 */
import { readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import {
  createClaim,
  createVendingServer,
  ensureCredential,
  openCredentialStore,
  stayConnected,
} from '@certvend/client'

function setting(name: string): string {
  const value = process.env[name]
  if (!value) throw new TypeError(`set ${name}`)
  return value
}

const stop = new AbortController()
for (const name of ['SIGTERM', 'SIGINT'] as const) process.once(name, () => stop.abort())
const { signal } = stop

const vendingServer = createVendingServer({
  url: setting('CERTVEND_URL'),
  pins: readFileSync(setting('CERTVEND_PINS'), 'utf8'),
})
const claim = createClaim({
  deviceSerial: setting('CERTVEND_SERIAL'),
  token: readFileSync(setting('CERTVEND_TOKEN_FILE'), 'utf8'),
})

const store = await openCredentialStore(setting('STATE_DIRECTORY'))
const known = store.current() !== undefined
const credential = await ensureCredential(store, vendingServer, claim, { signal })
console.log(`${known ? 'known' : 'enrolled'} as ${credential.thingName}`)

const readings = Number(process.env.READINGS ?? Number.POSITIVE_INFINITY)
let taken = 0

for await (const session of stayConnected(store, { signal })) {
  let online = true
  session.ended.then(() => {
    online = false
  })
  while (online && taken < readings) {
    const reading = { at: new Date().toISOString(), uptimeSeconds: Math.round(process.uptime()) }
    await session.publish(`readings/${session.thingName}`, JSON.stringify(reading)).then(
      () => console.log(`reading ${++taken} acknowledged`),
      (error) => console.error(`reading not acknowledged: ${error.message}`),
    )
    if (taken < readings) await pause(5000, undefined, { signal }).catch(() => {})
  }
  if (taken >= readings) break
}
store.close()
