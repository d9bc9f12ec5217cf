/** Devices on the machine of the page: the real certvend, as a user who is nobody in particular. */
import type { Typed } from './desk.ts'
import type { Site } from './site.ts'

/** Asks for a certificate with the token that was last handed over for that serial. */
export async function attempt({ desk }: Site, serial: string, state: string): Promise<Typed> {
  await desk.must(`install -m 600 -o device ${serial}.token /home/device/`)
  return desk.try(
    `certvend enroll --server https://vending.example.com:8443 --pin pin.pem --serial ${serial} --token-file ${serial}.token --state-dir ./state-${serial}-${state} --once`,
    'device',
  )
}

/** Adds the device unless it was handed a token already, and lets it enroll. */
export async function enroll(site: Site, serial: string, state = 'first'): Promise<void> {
  await site.desk.must(
    `test -e ${serial}.token || (umask 077; vend device add ${serial} > ${serial}.token)`,
  )
  const { code, err } = await attempt(site, serial, state)
  site.report.holds(code === 0, `${serial} enrolls: ${err}`)
}

/** Lets it open a session and publish; without `state` as the page has enrolled it. @returns whether the broker let its message through */
export async function bringOnline(
  { desk, machine, report }: Site,
  serial: string,
  state?: string,
): Promise<boolean> {
  const log = '/var/log/mosquitto/mosquitto.log'
  const place = state === undefined ? './state' : `./state-${serial}-${state}`
  await desk.must(`: > ${log}`)
  const { code, out, err } = await desk.try(`certvend run --once --state-dir ${place}`, 'device')
  report.holds(code === 0, `${serial} has a session: ${out}${err}`)
  await machine.until(`grep -qE '(Received|Denied) PUBLISH from ${serial}' ${log}`)
  return (await desk.try(`grep -q 'Denied PUBLISH from ${serial}' ${log}`)).code !== 0
}
