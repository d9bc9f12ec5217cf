/**
 * The service in a real boot, put through what happens to gateways: from the package and two lines of
 * configuration to online, and back after every kind of loss.
 */
import fs from 'node:fs'
import path from 'node:path'
import type { Lab } from '@certvend/server/lab'
import type { Machine } from './machine.ts'
import type { Report } from './report.ts'

export interface Packages {
  /** Two of them, the second newer. */
  readonly packages: readonly string[]
  /** The package of an earlier version, where there is one. */
  readonly previous: string
  readonly report: Report
}

const online = 'certvend status --check >/dev/null'

export async function hardships(
  machine: Machine,
  lab: Lab,
  { packages, previous, report }: Packages,
): Promise<void> {
  const { step, holds, say } = report
  const [first = '', second = ''] = packages
  const serial = 'gateway-0001'
  const { token } = await lab.addDevice(serial)
  const shell = async (line: string): Promise<string> => {
    const { code, stdout, stderr } = await machine.run(line)
    if (code !== 0) throw new Error(`${line}\nexit code ${code}\n${stdout}${stderr}`)
    return stdout.trim()
  }
  const put = (file: string, text: string, mode = 0o644): void => {
    fs.writeFileSync(path.join(machine.root, file), text)
    fs.chmodSync(path.join(machine.root, file), mode)
  }
  const property = (name: string): Promise<string> =>
    shell(`systemctl show certvend --property=${name} --value`)
  // What doctor asks is answered too, and is no certificate.
  const issued = (): number =>
    lab.requests.filter(({ status, path: at }) => status === 200 && /enroll$/.test(at)).length
  const diagnosed = async (command = 'certvend doctor --json'): Promise<string> => {
    const { code, stdout, stderr } = await machine.run(command)
    const { healthy, cause } = JSON.parse(stdout || `{"cause":${JSON.stringify(stderr)}}`)
    const verdict = `${code} ${healthy ? 'healthy' : cause}`
    if (!healthy) say(`        doctor: ${verdict}`)
    return verdict
  }
  const stateDirectory = '/var/lib/private/certvend'
  const rearm = (): Promise<boolean> => {
    const now = new Date()
    const openUntil = new Date(now.getTime() + 3_600_000)
    return lab.registry.rearm(serial, { token: 'keep', openUntil, revoke: false }, now)
  }
  const mainPid = (): Promise<string> => property('MainPID')

  await step('a minimal Debian boots', () => machine.boot())

  await step('the package is installed, enabled, and waits for its configuration', async () => {
    fs.copyFileSync(first, path.join(machine.root, 'root/first.deb'))
    fs.copyFileSync(second, path.join(machine.root, 'root/second.deb'))
    await shell('dpkg --install /root/first.deb')
    holds((await shell('systemctl is-enabled certvend')) === 'enabled', 'it is enabled')
    holds((await property('ActiveState')) === 'inactive', 'it is not started')
    await shell('getent group certvend')
  })

  await step('systemd finds no fault with the unit where it is installed', async () => {
    await shell('systemd-analyze verify --man=no certvend.service')
    const verdict = await shell('systemd-analyze security --no-pager certvend.service | tail -n 1')
    say(`        ${verdict.replace(/^\W+/, '')}`)
  })

  await step('without a configuration it stops, says why, and is not started again', async () => {
    await machine.run('systemctl start certvend')
    await machine.until('systemctl is-failed certvend')
    holds((await property('ExecMainStatus')) === '2', 'exit code 2')
    const log = await shell('journalctl --unit certvend --output cat --no-pager')
    holds(log.includes('no vending server'), 'the log says what is missing')
    holds((await diagnosed()) === '2 vending-url', 'doctor names the cause, not the service')
    await shell('systemctl reset-failed certvend')
  })

  await step('two lines, a token from the boot partition, systemctl start: online', async () => {
    put('etc/certvend/ca.pem', lab.pins)
    put(
      'etc/certvend/agent.toml',
      `url = "${lab.vendingUrl}"\npins = "ca.pem"\n# the lab knows it by this name:\nserial = "${serial}"\n`,
    )
    fs.mkdirSync(path.join(machine.root, 'boot/firmware'), { recursive: true })
    put('boot/firmware/certvend.token', `${token}\n`, 0o755)
    await shell('systemctl start certvend')
    await machine.until(online)
    holds(issued() === 1, 'one certificate was issued')
  })

  await step('the token is gone from the boot partition and from the state directory', async () => {
    await shell('test ! -e /boot/firmware/certvend.token')
    const left = await shell(
      `grep -rl "${token}" /boot /etc/certvend /var/lib /run 2>/dev/null || true`,
    )
    holds(left === '', `no copy is left: ${left}`)
  })

  await step('systemctl status says who is online', async () => {
    const words = await property('StatusText')
    say(`        ${words}`)
    holds(words.startsWith(`online as ${serial} since`), words)
    holds((await property('Type')) === 'notify', 'Type=notify')
  })

  await step(
    'it runs as nobody in particular, and its key is closed to everybody else',
    async () => {
      const uid = await shell(`stat --format=%u /proc/${await mainPid()}`)
      holds(uid !== '0', 'it is not root')
      const modes = await shell('find /var/lib/private/certvend/generations -printf "%m %f\\n"')
      holds(modes.includes('600 private-key.pem'), modes)
    },
  )

  await step('a member of the group may ask, anybody else may not', async () => {
    await shell('useradd asker; usermod --append --groups certvend asker; useradd stranger')
    await shell(`su asker --command '${online}'`)
    const { code } = await machine.run(`su stranger --command 'certvend status --check'`)
    holds(code !== 0, 'a stranger is told nothing')
    const socket = await machine.run(`su asker --command 'certvend reload'`)
    holds(socket.code === 2, 'the group may not reload')
    for (const command of ['renew', 'forget --yes']) {
      const { code: refused } = await machine.run(`su asker --command 'certvend ${command}'`)
      holds(refused !== 0, `the group may not ${command}`)
    }
    await shell('grep -q "^certvend_online 1" /run/certvend/metrics.prom')
    await shell('su asker --command "cat /run/certvend/metrics.prom" >/dev/null')
    holds(
      (await machine.run('su stranger --command "cat /run/certvend/metrics.prom"')).code !== 0,
      'nor do strangers read the metrics',
    )
  })

  await step(
    'root’s commands beside the daemon change nothing, and a second daemon stays off',
    async () => {
      const owners = `find ${stateDirectory} -printf "%U:%G %m %p %T@\\n" | grep -v journal`
      const before = await shell(owners)
      await shell(
        'certvend status >/dev/null; certvend store check >/dev/null; certvend enroll >/dev/null',
      )
      const second = await machine.run('certvend run')
      holds(second.code === 3, `a second agent exits with 3, not ${second.code}: ${second.stderr}`)
      holds(second.stderr.includes('belongs to another user'), second.stderr)
      const third = await machine.run(
        `systemd-run --quiet --wait --pipe --property=User=$(stat --format=%u ${stateDirectory}) certvend run --state-dir /var/lib/certvend 2>&1`,
      )
      holds(third.code === 3, `also as the daemon's own user: ${third.code} ${third.stdout}`)
      holds((await shell(owners)) === before, 'every file is as it was')
      await shell(online)
    },
  )

  await step('twenty seconds idle: nothing is written to disk', async () => {
    const written = async (): Promise<string> =>
      shell(
        `grep ^write_bytes /proc/${await mainPid()}/io; find ${stateDirectory} /run/certvend -printf "%p %T@\\n"`,
      )
    const before = await written()
    await new Promise((resolve) => setTimeout(resolve, 20_000))
    holds((await written()) === before, 'write_bytes and every time stamp are as they were')
  })

  await step(
    'doctor finds nothing, asked by root or by the group, and the session stays',
    async () => {
      const before = lab.mqtt.opened
      holds((await diagnosed()) === '0 healthy', 'root')
      holds(
        (await diagnosed(`su asker --command 'certvend doctor --json'`)) === '0 healthy',
        'group',
      )
      holds(lab.mqtt.opened === before, 'the session stays')
    },
  )

  await step('doctor says that the service was stopped, or masked', async () => {
    await shell('systemctl stop certvend')
    holds((await diagnosed()) === '3 service', 'stopped')
    await shell('systemctl mask --runtime certvend')
    holds((await diagnosed()) === '3 service', 'masked')
    await shell('systemctl unmask --runtime certvend && systemctl start certvend')
    await machine.until(online)
  })

  await step('systemctl reload reads the configuration, and nobody is disconnected', async () => {
    const before = lab.mqtt.opened
    await shell('systemctl reload certvend')
    await machine.until('journalctl --unit certvend --output cat | grep -q config.reloaded')
    holds(lab.mqtt.opened === before, 'the session stays')
  })

  await step('kill -9: online again, with the same certificate', async () => {
    const pid = await mainPid()
    await shell(`kill -9 ${pid}`)
    await machine.until(
      `test "$(systemctl show certvend --property=MainPID --value)" != ${pid} && ${online}`,
    )
    holds(issued() === 1, 'no new certificate')
  })

  await step('a loop that stands still is killed by the watchdog: online again', async () => {
    await shell(
      'mkdir -p /run/systemd/system/certvend.service.d && printf "[Service]\\nWatchdogSec=4s\\n" > /run/systemd/system/certvend.service.d/test.conf && systemctl daemon-reload && systemctl restart certvend',
    )
    await machine.until(online)
    const pid = await mainPid()
    await shell(`kill -STOP ${pid}`)
    await machine.until(
      `test "$(systemctl show certvend --property=MainPID --value)" != ${pid} && ${online}`,
    )
    const log = await shell('journalctl --unit certvend --no-pager')
    holds(/[Ww]atchdog timeout/.test(log), 'the watchdog did it')
    const restarts = Number(await property('NRestarts'))
    await new Promise((resolve) => setTimeout(resolve, 10_000))
    holds(Number(await property('NRestarts')) === restarts, 'fed, it leaves the loop alone')
    await shell('rm -r /run/systemd/system/certvend.service.d; systemctl daemon-reload')
    holds(issued() === 1, 'no new certificate')
  })

  await step('the network goes and comes back: online again', async () => {
    const before = lab.mqtt.opened
    await machine.cable('down')
    await shell('systemctl restart certvend') // at once, instead of after the keep-alive
    await machine.until('test "$(systemctl is-active certvend)" = active')
    const { code } = await machine.run('certvend status --check')
    holds(code === 1, `status --check says 1 while offline, not ${code}`)
    say(`        ${await property('StatusText')}`)
    await machine.cable('up')
    await machine.until(online, 120_000)
    holds(lab.mqtt.opened > before, 'by a new session')
    holds(issued() === 1, 'no new certificate')
  })

  await step('a reboot: online by itself', async () => {
    await machine.shutDown()
    await machine.boot()
    await machine.until(online)
    holds(issued() === 1, 'no new certificate')
  })

  await step(
    'certvend renew: another key and certificate, proven before the other is retired',
    async () => {
      const before = await shell(`sha256sum ${stateDirectory}/current/private-key.pem`)
      const said = await shell('certvend renew')
      holds(said.startsWith(`enrolled ${serial}`), said)
      await machine.until(online)
      holds(issued() === 2, 'one more certificate')
      holds(
        (await shell(`sha256sum ${stateDirectory}/current/private-key.pem`)) !== before,
        'another key',
      )
      holds((await shell(`ls ${stateDirectory}/generations`)) === '0000000002', 'and no other')
      const statuses = (await lab.registry.certificates(serial)).map(({ status }) => status)
      holds(statuses.join() === 'ACTIVE,INACTIVE', statuses.join())
    },
  )

  await step(
    'certvend forget: revoked, removed, and quiet until somebody enrolls it again',
    async () => {
      holds((await machine.run('certvend forget </dev/null')).code === 2, 'it asks first')
      const said = await shell('certvend forget --yes')
      say(`        ${said.replaceAll('\n', '\n        ')}`)
      holds((await shell(`ls -A ${stateDirectory}`)) === 'lock', 'nothing of it is left')
      holds((await property('ActiveState')) === 'active', 'the agent waits')
      holds((await property('StatusText')).startsWith('everything was removed'), 'and says so')
      await rearm()
      put('root/claim.token', token, 0o600)
      await shell('certvend enroll --token-file /root/claim.token')
      await machine.until(online)
      holds(issued() === 3, 'a certificate of its own')
    },
  )

  await step('an upgrade goes on with the credential that is there', async () => {
    const known = issued()
    const pid = await mainPid()
    await shell('dpkg --install /root/second.deb')
    await machine.until(
      `test "$(systemctl show certvend --property=MainPID --value)" != ${pid} && ${online}`,
    )
    holds(
      (await shell('head -n 1 /etc/certvend/agent.toml')).startsWith('url'),
      'the configuration stays',
    )
    holds(issued() === known, 'no new certificate')
  })

  await step('removal stops it and keeps the credential; purge leaves nothing', async () => {
    await shell('dpkg --remove certvend')
    await shell('test -d /var/lib/private/certvend/generations')
    await shell('! pgrep -f "[s]hare/certvend"')
    await shell('dpkg --purge certvend')
    const left = await shell(
      'find / -xdev \\( -name "*certvend*" -o -name private-key.pem \\) -not -path "/proc/*" -not -path "/root/*" -not -path "/var/log/*" 2>/dev/null',
    )
    holds(left === '', `nothing is left:\n${left}`)
  })

  await step('installed again, with a token that systemd-creds has encrypted: online', async () => {
    const next = await lab.addDevice('gateway-0002')
    const known = issued()
    fs.copyFileSync(previous, path.join(machine.root, 'root/previous.deb'))
    await shell('dpkg --install /root/previous.deb')
    put('etc/certvend/ca.pem', lab.pins)
    put(
      'etc/certvend/agent.toml',
      `url = "${lab.vendingUrl}"\npins = "ca.pem"\nserial = "${next.deviceSerial}"\n`,
    )
    await shell(
      `printf %s ${next.token} | systemd-creds encrypt --with-key=host --name=claim-token - /etc/certvend/claim.token.cred`,
    )
    await shell(
      'mkdir -p /etc/systemd/system/certvend.service.d && printf "[Service]\\nLoadCredentialEncrypted=claim-token:/etc/certvend/claim.token.cred\\n" > /etc/systemd/system/certvend.service.d/token.conf && systemctl daemon-reload && systemctl start certvend',
    )
    await machine.until(online)
    holds(issued() === known + 1, 'a certificate of its own')
  })

  await step(
    'upgraded from the previous package, with the identity that it made: online',
    async () => {
      const known = issued()
      const [before] = await lab.registry.certificates('gateway-0002')
      const pid = await mainPid()
      await shell('dpkg --install /root/second.deb')
      await machine.until(
        `test "$(systemctl show certvend --property=MainPID --value)" != ${pid} && ${online}`,
      )
      holds(issued() === known, 'no new certificate')
      const shown = JSON.parse(await shell('certvend status --json'))
      holds(shown.credential.certificateId === before?.certificateId, 'the same one')
    },
  )

  await step(
    'certvend forget by root, with the service stopped: its store is another user’s',
    async () => {
      await shell('systemctl stop certvend')
      await shell('certvend forget --yes')
      holds((await shell(`ls -A ${stateDirectory}`)) === 'lock', 'nothing of it is left')
      const [certificate] = await lab.registry.certificates('gateway-0002')
      holds(certificate?.status === 'REVOKED', 'and the vending machine has revoked it')
    },
  )
}
