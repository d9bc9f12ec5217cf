/** Steps 1 to 4: from nothing to a server that listens, and a broker that admits its devices. */
import path from 'node:path'
import { host } from '../gateway/machine.ts'
import { inside, type Site } from './site.ts'

export async function installation(site: Site, packages: string): Promise<void> {
  const { machine, desk, page, report } = site
  const { step, holds, say } = report

  await step('a Debian with Node, npm, MariaDB and mosquitto boots', async () => {
    await machine.boot()
    await desk.must('systemctl stop mosquitto')
    for (const user of ['device', 'dba']) await desk.must(`useradd --create-home ${user}`)
    // What the devices run, which is no service of this machine's.
    const deb = path.join(packages, 'certvend_0.1.0_all.deb')
    await host('dpkg-deb', '--extract', deb, inside(site, 'opt/device'))
    await desk.must('ln -s /opt/device/usr/share/certvend/dist/main.js /usr/local/bin/certvend')
  })

  await step('step 1: it is installed', async () => {
    for (const block of page.take('1')) await desk.type(block)
    holds(
      (await desk.must('stat -c "%a %U %G" /etc/certvend-server')) === '750 root certvend-server',
      'modes',
    )
  })

  await step('step 2: it is told its names', async () => {
    const [environment] = page.take('2')
    await desk.put('etc/certvend-server/environment', environment?.text ?? '')
    await desk.put('etc/certvend-server/mqtt-ca.pem', site.mqttCa.certificate)
  })

  await step('step 3: it is started, listens when systemctl returns, and is ready', async () => {
    for (const block of page.take('3')) await desk.type(block)
    say(`        ${await desk.must('systemctl show certvend-server -p StatusText --value')}`)
    await desk.must('install -m 644 /var/lib/certvend-server/tls/pin.pem /home/device/')
    const log = await site.journal()
    holds(log.includes('"event":"listening"'), log)
  })

  await step('the unit has no fault, and the exposure that the page says', async () => {
    const faults = await machine.run('systemd-analyze verify --man=no certvend-server.service')
    holds(faults.code === 0 && faults.stderr === '', faults.stderr)
    const verdict = await desk.must(
      'systemd-analyze security --no-pager certvend-server.service | tail -n 1',
    )
    say(`        ${verdict.replace(/^\W+/, '')}`)
    const said = /exposure by `systemd-analyze security` is (\d\.\d)/.exec(page.text)?.[1]
    holds(verdict.includes(`: ${said} `), `${said}: ${verdict}`)
  })

  await step('it runs as its user, and what it keeps is closed to others', async () => {
    const pid = await desk.must('systemctl show certvend-server -p MainPID --value')
    holds((await desk.must(`stat -c %U /proc/${pid}`)) === 'certvend-server', 'its user')
    const open = await desk.must(
      'find /var/lib/certvend-server -perm /077 ! -name "*.pem" -o -name "*.key.pem" -perm /077',
    )
    holds(open === '', open)
    holds((await desk.try('ls /var/lib/certvend-server', 'device')).code !== 0, 'nobody looks in')
  })

  await step('step 4: mosquitto admits its devices', async () => {
    const identity = await site.identity('mqtt.example.com', site.mqttCa)
    await desk.put('etc/mosquitto/certs/mqtt.pem', identity.certificate)
    const owner = 'mosquitto'
    await desk.put('etc/mosquitto/certs/mqtt.key', identity.privateKey, { mode: 0o600, owner })
    await desk.put('etc/mosquitto/conf.d/test.conf', 'log_type all\n') // what is let through, and what not
    const [copy, configuration, start] = page.take('4')
    if (!copy || !configuration || !start) throw new Error('step 4 has three blocks')
    await desk.type(copy)
    await desk.put('etc/mosquitto/conf.d/certvend.conf', configuration.text)
    await desk.type(start)
    await machine.until('ss -ltn | grep -q :8883')
  })
}
