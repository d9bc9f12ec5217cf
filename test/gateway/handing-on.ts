/**
 * The identity handed on in a real boot: a mosquitto bridge, a program that reads all the while, and a
 * unit that systemd hands its files to, through a hundred changes of identity.
 *
 * The store lies where the service has it; this host changes it, through the machine's file system, by
 * the same code as the agent. So a change takes a moment and no vending machine.
 */
import { X509Certificate } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { openCredentialStore } from '@certvend/client'
import { type Certified, certificateIdOf, certify } from '../pki.ts'
import type { Machine } from './machine.ts'
import type { Report } from './report.ts'

const changes = 100
const farPort = 8884
const thingName = 'gateway-1'

const configuration = `
[[consumers]]
name = "bridge"
format = "mosquitto-bridge"
directory = "/etc/mosquitto/certvend"
owner = "mosquitto"
topics = ["sensors/# out 1"]
unit = "mosquitto.service"
health = ["/usr/bin/systemctl", "is-active", "--quiet", "mosquitto.service"]

[[consumers]]
name = "reader"
format = "json"
directory = "/etc/reader/identity"
group = "reader"
unit = "reader.service"
action = "reload"
health = ["/usr/bin/systemctl", "is-active", "--quiet", "reader.service"]

[[consumers]]
name = "loader"
format = "json"
directory = "/etc/loader/identity"
unit = "loader.service"
health = ["/usr/bin/systemctl", "is-active", "--quiet", "loader.service"]
`

/** Reads the pair that the manifest names, all the while and on SIGHUP, and counts what does not fit. */
const readerProgram = `
const fs = require('node:fs'), { createPrivateKey, createPublicKey, X509Certificate } = require('node:crypto')
const seen = { reads: 0, mixed: 0, hangups: 0, identities: [] }
function read() {
  const { files, certificateId } = JSON.parse(fs.readFileSync('/etc/reader/identity/current/certvend.json', 'utf8'))
  try {
    const certificate = new X509Certificate(fs.readFileSync(files.certificate))
    const key = createPublicKey(createPrivateKey(fs.readFileSync(files.privateKey)))
    if (!certificate.publicKey.equals(key)) seen.mixed++
    seen.reads++
    if (seen.identities.at(-1) !== certificateId) seen.identities.push(certificateId)
  } catch (error) { if (error.code !== 'ENOENT') throw error }
}
process.on('SIGHUP', () => { seen.hangups++; read(); fs.appendFileSync('/run/reader/order', 'reader\\n') })
setInterval(() => { read(); fs.writeFileSync('/run/reader/seen', JSON.stringify(seen)) }, 5)
`

/** What systemd handed it is one identity, and not the one it is told to be sick of. */
const loaderProgram = `
const fs = require('node:fs'), { createPrivateKey, createPublicKey, X509Certificate } = require('node:crypto')
const at = (name) => fs.readFileSync(process.env.CREDENTIALS_DIRECTORY + '/identity_' + name)
const certificate = new X509Certificate(at('certificate.pem'))
const fits = certificate.publicKey.equals(createPublicKey(createPrivateKey(at('private-key.pem'))))
fs.appendFileSync('/run/loader/seen', (fits ? 'fits' : 'MIXED') + '\\n')
fs.appendFileSync('/run/reader/order', 'loader\\n')
const sick = fs.existsSync('/run/loader/sick') ? fs.readFileSync('/run/loader/sick', 'utf8').trim() : ''
const id = JSON.parse(at('certvend.json')).certificateId
process.exit(fits && id !== sick ? 0 : 1)
`

const units: Readonly<Record<string, string>> = {
  'far.service': `[Service]\nExecStart=/usr/sbin/mosquitto -c /etc/far/mosquitto.conf\n`,
  'reader.service': `[Service]\nUser=reader\nGroup=reader\nRuntimeDirectory=reader\nRuntimeDirectoryMode=0777\nRuntimeDirectoryPreserve=yes\nExecStart=/usr/bin/node /etc/reader/reader.cjs\nExecReload=/bin/sh -c 'kill -HUP $MAINPID'\n`,
  'loader.service': `[Service]\nType=oneshot\nRemainAfterExit=yes\nRuntimeDirectory=loader\nRuntimeDirectoryPreserve=yes\nLoadCredential=identity:/etc/loader/identity/current/\nExecStart=/usr/bin/node /etc/loader/loader.cjs\n`,
  // Debian's unit waits for a notification that its mosquitto does not send everywhere.
  'mosquitto.service.d/order.conf': `[Service]\nType=exec\nExecStartPost=+/bin/sh -c 'test ! -d /run/reader || echo bridge >> /run/reader/order'\n`,
}

/** Runs the scenario on a machine that was not booted yet. */
export async function handingOn(machine: Machine, deb: string, report: Report): Promise<void> {
  const { step, holds, say } = report
  const shell = async (line: string): Promise<string> => {
    const { code, stdout, stderr } = await machine.run(line)
    if (code !== 0) throw new Error(`${line}\nexit code ${code}\n${stdout}${stderr}`)
    return stdout.trim()
  }
  const inside = (...names: readonly string[]): string => path.join(machine.root, ...names)
  const put = (file: string, text: string, mode = 0o644): void => {
    fs.mkdirSync(path.dirname(inside(file)), { recursive: true })
    fs.writeFileSync(inside(file), text, { mode })
  }
  const [deviceCa, mqttCa] = await Promise.all([
    certify('Device CA', { ca: true }),
    certify('MQTT CA', { ca: true }),
  ])
  const state = inside('var/lib/private/certvend')
  const change = (): Promise<string> => changeIdentity(state, { deviceCa, mqttCa })
  const record = '/run/certvend-consumers/consumers.json'
  const delivered = (id: string): Promise<void> =>
    machine.until(
      `test "$(grep -c ${id} ${record})" = 3 && systemctl show certvend-consumers.path --property=SubState | grep -q waiting`,
    )
  const identityOf = (name: string): Promise<string> =>
    shell(`grep -o '"certificateId": "[0-9a-f]*"' /etc/${name}/identity/current/certvend.json`)
  const results = async (): Promise<string> =>
    (JSON.parse(await shell(`cat ${record}`)).consumers as { name: string; state: string }[])
      .map(({ name, state }) => `${name} ${state}`)
      .join(', ')

  await step('handing on: a gateway with mosquitto and two programs boots', async () => {
    const far = await certify('localhost', { issuer: mqttCa })
    put('etc/far/ca.pem', deviceCa.certificate)
    put('etc/far/server.pem', far.certificate)
    put('etc/far/server-key.pem', far.privateKey)
    put(
      'etc/far/mosquitto.conf',
      `user root\nlog_dest file /run/far.log\nlistener ${farPort} 127.0.0.1\ncafile /etc/far/ca.pem\ncertfile /etc/far/server.pem\nkeyfile /etc/far/server-key.pem\nrequire_certificate true\nuse_identity_as_username true\n`,
    )
    put('etc/hosts', '127.0.0.1 localhost\n')
    put('etc/reader/reader.cjs', readerProgram)
    put('etc/loader/loader.cjs', loaderProgram)
    for (const [name, text] of Object.entries(units)) put(`etc/systemd/system/${name}`, text)
    fs.copyFileSync(deb, inside('root/certvend.deb'))
    fs.chmodSync(path.dirname(state), 0o700)
    await machine.boot()
    await shell('useradd reader; useradd stranger; dpkg --install /root/certvend.deb')
    put('etc/certvend/agent.toml', configuration)
    await shell('ln -s private/certvend /var/lib/certvend; systemctl start far')
    await shell(
      'ln -s /etc/mosquitto/certvend/current/bridge.conf /etc/mosquitto/conf.d/certvend.conf; systemctl stop mosquitto',
    )
  })

  await step('handing on: the unit has no fault, and its exposure is said', async () => {
    await shell(
      'systemd-analyze verify --man=no certvend-consumers.service certvend-consumers.path',
    )
    const verdict = await shell(
      'systemd-analyze security --no-pager certvend-consumers.service | tail -n 1',
    )
    say(`        ${verdict.replace(/^\W+/, '')}`)
  })

  await step('handing on: the first identity reaches three consumers by itself', async () => {
    await delivered(await change())
    await shell('systemctl start mosquitto reader loader')
    await machine.until(`grep -q 'as ${thingName}-bridge' /run/far.log`)
    await machine.until('test -s /run/reader/seen') // deaf to SIGHUP before, and killed by it
  })

  await step('handing on: a message crosses the bridge with mutual TLS', async () => {
    const subscriber = `mosquitto_sub -p ${farPort} -h localhost --cafile /etc/mosquitto/certvend/current/trust-anchors.pem --cert /etc/mosquitto/certvend/current/certificate.pem --key /etc/mosquitto/certvend/current/private-key.pem -i asker -t 'sensors/#' -C 1 -W 20`
    const heard = shell(subscriber)
    await machine.until(`grep -q 'as asker' /run/far.log`)
    await shell('mosquitto_pub -t sensors/one -q 1 -m hello')
    holds((await heard) === 'hello', 'the far broker has the message')
  })

  await step('handing on: nobody who is not listed reads a key', async () => {
    const stranger = async (file: string): Promise<boolean> =>
      (await machine.run(`su stranger --command 'cat ${file}'`)).code !== 0
    for (const directory of ['mosquitto/certvend', 'reader/identity', 'loader/identity'])
      holds(await stranger(`/etc/${directory}/current/private-key.pem`), directory)
    await shell(`su reader --command 'cat /etc/reader/identity/current/private-key.pem'`)
  })

  await step(`handing on: ${changes} changes under load, in order, and no mixed pair`, async () => {
    // As long as the changes should take at the most, whatever becomes of this test.
    await shell(
      `systemd-run --quiet --unit=load --nice=10 timeout 600 sh -c 'while :; do :; done'; : > /run/reader/order; chmod 666 /run/reader/order`,
    )
    for (let number = 0; number < changes; number++) await delivered(await change())
    await shell('systemctl stop load')
    const order = (await shell('cat /run/reader/order')).split('\n')
    const wanted = Array.from({ length: changes }, () => ['bridge', 'reader', 'loader']).flat()
    holds(order.join() === wanted.join(), `the order: ${order.slice(0, 9).join()} …`)
    await machine.until(`test "$(systemctl is-active reader)" = active`)
    const reader = JSON.parse(await shell('cat /run/reader/seen'))
    const loader = await shell('sort /run/loader/seen | uniq -c')
    say(
      `        reader: ${reader.reads} reads, ${reader.mixed} mixed, ${reader.hangups} hangups; loader: ${loader}`,
    )
    holds(reader.mixed === 0 && reader.hangups === changes, 'no mixed pair was read')
    holds(!loader.includes('MIXED'), 'no mixed pair was handed over')
    const bridged = await shell(`grep -c 'as ${thingName}-bridge' /run/far.log`)
    holds(Number(bridged) > changes, `the bridge came back each time: ${bridged}`)
  })

  await step('handing on: where nothing changed, nothing is rewritten or woken', async () => {
    const look =
      'find /etc/mosquitto /etc/reader /etc/loader -printf "%p %C@\\n"; cat /run/reader/order'
    const before = await shell(look)
    await shell('systemctl start certvend-consumers')
    holds((await shell(look)) === before, 'times and order are as before')
    holds(!/delivered|rolled/.test(await results()), await results())
  })

  await step(
    'handing on: one that is sick of the new identity has the old one back, alone',
    async () => {
      const old = await identityOf('loader')
      await shell('systemctl stop certvend-consumers.path')
      const id = await change()
      await shell(`echo ${id} > /run/loader/sick; systemctl start certvend-consumers.path`)
      await machine.run('systemctl start certvend-consumers')
      holds(
        (await results()) === 'bridge delivered, reader delivered, loader rolled-back',
        await results(),
      )
      holds((await identityOf('loader')) === old, 'the loader has the old identity')
      holds((await identityOf('reader')).includes(id), 'the reader has the new one')
      await shell('systemctl is-active loader')
      const words = await shell('certvend status')
      holds(words.includes('loader: has its previous identity back'), words)
      await shell('rm /run/loader/sick; systemctl start certvend-consumers')
      holds((await identityOf('loader')).includes(id), 'and gets the new one when it is well')
    },
  )

  await step('handing on: a round that was killed is finished after the next boot', async () => {
    await shell(
      `mkdir -p /run/systemd/system/mosquitto.service.d && printf '[Service]\\nExecStartPre=/bin/sleep 600\\nTimeoutStartSec=700\\n' > /run/systemd/system/mosquitto.service.d/slow.conf && systemctl daemon-reload`,
    )
    const id = await change()
    await machine.until('test -e /var/lib/certvend-consumers/unfinished')
    await machine.until('systemctl is-active mosquitto | grep -q activating')
    await machine.run('systemctl kill --signal=KILL certvend-consumers')
    await machine.shutDown()
    await machine.boot()
    await shell('systemctl start far reader loader')
    await delivered(id)
    await machine.until('test ! -e /var/lib/certvend-consumers/unfinished')
    holds(!/rolled|unhealthy|failed/.test(await results()), await results())
  })

  await step(
    'handing on: a hostile state directory makes it read and write nothing else',
    async () => {
      const look =
        'find /etc /srv /opt /root /home -xdev \\( -type f -o -type l \\) -printf "%p %s %C@\\n" | sort | md5sum'
      const tricks: Readonly<Record<string, string>> = {
        'the key is a link to another user’s': 'ln -sf /etc/shadow "$g/private-key.pem"',
        'the certificate is a FIFO': 'rm "$g/certificate.pem"; mkfifo "$g/certificate.pem"',
        'the record is huge': 'truncate --size=20G "$g/credential.json"',
        'the generation is a link': 'mv "$g" "$s/elsewhere"; ln -s "$s/elsewhere" "$g"',
        'current leads out': 'ln -sfn ../../../etc "$s/current"',
        'a file is another user’s': 'chown 0:0 "$g/certificate.pem"',
        'a file has a second name': 'ln "$g/private-key.pem" "$s/second"',
      }
      await shell('systemctl stop certvend; cp -a /var/lib/private/certvend /root/sound')
      for (const [trick, line] of Object.entries(tricks)) {
        await shell(
          `systemctl stop certvend-consumers.path; rm -rf /var/lib/private/certvend; cp -a /root/sound /var/lib/private/certvend; s=/var/lib/private/certvend; g=$s/$(readlink $s/current); chown -R 12345:12345 $s; ${line}`,
        )
        const before = await shell(look)
        const { code } = await machine.run('timeout 60 systemctl start certvend-consumers')
        holds(code !== 0, `${trick}: refused`)
        holds((await shell(look)) === before, `${trick}: nothing was written`)
        await shell(`! grep -rq 'root:' /etc/mosquitto/certvend /etc/reader /etc/loader/identity`)
      }
      say(`        ${Object.keys(tricks).length} tricks, each refused`)
    },
  )

  await step('handing on: purge takes back what was handed on', async () => {
    await shell('dpkg --purge certvend')
    const left = await shell('find /etc -xdev -name "private-key.pem"')
    holds(left === '', `no key is left: ${left}`)
  })
}

/** What renewal does to the store: a successor is made, issued and promoted. */
async function changeIdentity(
  state: string,
  { deviceCa, mqttCa }: { deviceCa: Certified; mqttCa: Certified },
): Promise<string> {
  const store = await openCredentialStore(state)
  try {
    const { privateKey } = store.begin()
    const publicKey = privateKey.publicKey.export({ type: 'spki', format: 'der' })
    const { certificate } = await certify(thingName, { issuer: deviceCa, publicKey })
    const { generation } = store.issue({
      deviceSerial: thingName,
      thingName,
      certificateId: certificateIdOf(certificate),
      certificateChain: certificate,
      endpoint: { host: 'localhost', port: farPort, trustAnchors: [mqttCa.certificate] },
      keyOrigin: 'device',
      issuedAt: new Date(new X509Certificate(certificate).validFrom),
    })
    if (generation > 1) store.promote()
    return certificateIdOf(certificate)
  } finally {
    store.close()
  }
}
