/** Steps 8 to 12, with the registry in a file: the work of every day, and what must not disturb it. */

import fs from 'node:fs'
import { connect } from 'node:tls'
import { machineAddress } from '../gateway/machine.ts'
import { certify } from '../pki.ts'
import { attempt, bringOnline, enroll } from './device.ts'
import { inside, type Site } from './site.ts'

/** The public part of what the server shows. */
const shownBy = (ca: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const socket = connect(
      {
        host: machineAddress,
        port: 8443,
        ca,
        servername: 'vending.example.com',
        allowPartialTrustChain: true,
      },
      () => {
        resolve(socket.getPeerX509Certificate()?.fingerprint256 ?? '')
        socket.destroy()
      },
    ).once('error', reject)
  })

export async function everyday(site: Site): Promise<void> {
  const { machine, desk, page, report } = site
  const { step, holds, say } = report
  const [vend, , adding, enrolling] = page.take('8')
  const [tellBroker] = page.take('9')
  const [looking] = page.take('10')
  const [ending] = page.take('11')
  const [renewing] = page.take('12')
  if (!vend || !adding || !enrolling || !tellBroker || !looking || !ending || !renewing)
    throw new Error('a step has fewer blocks than it had')

  await step('step 8: a device and a batch are added', async () => {
    await desk.type(vend)
    await desk.type(adding)
    holds((await desk.must('stat -c %a SN-0001.token tokens.csv')) === '600\n600', 'modes')
    holds((await desk.must('grep -c ^SN- tokens.csv')) === '500', '500 tokens')
    holds(
      (await desk.must('stat -c %U /var/lib/certvend-server/* | sort -u')) === 'certvend-server',
      'owners',
    )
  })

  await step('step 8: the device gets its certificate', async () => {
    await desk.must('install -m 600 -o device SN-0001.token /home/device/')
    const [done] = await desk.type(enrolling, { user: 'device' })
    holds(
      done?.out.includes('enrolled SN-0001') || done?.err.includes('enrolled SN-0001') === true,
      JSON.stringify(done),
    )
  })

  await step('step 9: the broker is told, and the device is online', async () => {
    holds(!(await bringOnline(site, 'SN-0001')), 'unknown to the broker, it may nothing')
    await desk.type(tellBroker)
    holds(await bringOnline(site, 'SN-0001'), 'known, it publishes')
  })

  await step('step 10: who has not come, what happened, and what calls for a person', async () => {
    const [waiting, history, alarms] = await desk.type(looking)
    holds(waiting?.out.trim().split('\n').length === 501, 'a heading and 500 that wait')
    for (const word of ['enrolled', 'ACTIVE', 'added'])
      holds(history?.out.includes(word) === true, `${word}: ${history?.out}`)
    holds(alarms?.out === '', `no alarm: ${alarms?.out}`)
    const thief = await attempt(site, 'SN-0001', 'stolen')
    holds(thief.code === 3 && thief.err.includes('ERR_CLAIM_SPENT'), thief.err)
    const [, , after] = await desk.type(looking)
    holds(/SN-0001 .*ALARM/.test(after?.out ?? ''), `an alarm: ${after?.out}`)
    const metrics = await desk.must('curl -sS http://127.0.0.1:9464/metrics')
    holds(/^certvend_alarms_total\{.*\} 1$/m.test(metrics), 'and the metric of the page')
  })

  await step('step 11: a stolen device is out, and one with a new disk is in', async () => {
    await enroll(site, 'SN-0002')
    const [, rearmed] = await desk.type(ending)
    holds(rearmed?.err.includes('re-armed SN-0002') === true, JSON.stringify(rearmed))
    await desk.type(tellBroker)
    holds(!(await bringOnline(site, 'SN-0001')), 'the stolen one may nothing')
    holds((await attempt(site, 'SN-0001', 'again')).code === 3, 'and gets no other certificate')
    await enroll(site, 'SN-0002', 'new-disk')
    await desk.type(tellBroker)
    holds(await bringOnline(site, 'SN-0002', 'new-disk'), 'the other is online')
  })

  await step('a directory that nobody meant is told of, not filled in silence', async () => {
    const { err } = await desk.try('(cd /tmp; certvend-server device add SN-9999 >/dev/null)')
    holds(err.includes('made a registry, /tmp/certvend-data/registry.db'), err)
  })

  await step('a reboot keeps devices, CA and pin', async () => {
    const kept =
      'vend device list | sha256sum; (cd /var/lib/certvend-server; sha256sum device-ca.pem tls/pin.pem tls/root.pem)'
    const before = await desk.must(kept)
    await machine.shutDown()
    await machine.boot()
    await desk.must('systemctl is-active certvend-server')
    holds((await desk.must(kept)) === before, 'as before')
    await desk.must('curl -fsS http://127.0.0.1:9464/readyz')
  })

  await step(
    'systemctl stop ends in order, though a caller hangs in the middle of a request',
    async () => {
      const pin = fs.readFileSync(inside(site, 'var/lib/certvend-server/tls/pin.pem'), 'utf8')
      const hanging = connect({
        host: machineAddress,
        port: 8443,
        ca: pin,
        servername: 'vending.example.com',
        allowPartialTrustChain: true,
      })
      hanging.on('error', () => {})
      await new Promise((resolve) => hanging.once('secureConnect', resolve))
      hanging.write(
        'POST /v1/enroll HTTP/1.1\r\nHost: vending.example.com\r\nContent-Length: 100\r\n\r\n{',
      )
      const began = performance.now()
      await desk.must('systemctl stop certvend-server')
      say(`        ${((performance.now() - began) / 1000).toFixed(1)} s`)
      hanging.destroy()
      const how = await desk.must(
        'systemctl show certvend-server -p Result -p ExecMainStatus --value',
      )
      holds(how === 'success\n0', how)
      holds((await site.journal()).includes('"event":"stopped"'), 'and says so')
    },
  )

  await step('step 12: a renewed certificate is shown without a restart', async () => {
    const ca = await certify('Operator CA', { ca: true })
    const renew = async (): Promise<void> => {
      const { certificate, privateKey } = await site.identity('vending.example.com', ca)
      await desk.put('root/chain.pem', certificate)
      await desk.put('root/key.pem', privateKey, { mode: 0o600 })
      await desk.type(renewing)
    }
    await renew()
    await desk.must(
      `cp /etc/certvend-server/environment before; sed -i 's|$| --tls-cert /etc/certvend-server/chain.pem --tls-key /etc/certvend-server/key.pem|' /etc/certvend-server/environment; systemctl start certvend-server`,
    )
    const pid = await desk.must('systemctl show certvend-server -p MainPID --value')
    const first = await shownBy(ca.certificate)
    await renew()
    await machine.until('journalctl -u certvend-server | grep -q certificate-shown')
    holds((await shownBy(ca.certificate)) !== first, 'another certificate')
    holds(
      (await desk.must('systemctl show certvend-server -p MainPID --value')) === pid,
      'the same process',
    )
    await desk.must('cp before /etc/certvend-server/environment; systemctl restart certvend-server')
  })
}
