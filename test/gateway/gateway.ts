/**
 * `npm run test:gateway`: the Debian package in a real boot. A minimal Debian is installed into a
 * cache, booted by systemd-nspawn, given the package and two lines of configuration, and put through
 * what happens to gateways. The vending machine and the broker are in another network namespace.
 *
 * `npm run test:gateway -- handing-on` runs only that part, `-- service` all but it.
 *
 * Needs root, systemd-nspawn, debootstrap, iproute2 and, once, a Debian mirror; says so and ends well
 * where something is missing.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { homedir, tmpdir } from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Lab, startLab } from '@certvend/server/lab'
import { handingOn } from './handing-on.ts'
import { baseSystem, buildMachine, host, hostAddress, type Machine } from './machine.ts'
import { firstBoot, foreignSystem, missingEmulator, processors } from './processors.ts'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const say = (line: string): void => void process.stdout.write(`${line}\n`)

function missing(): string | undefined {
  if (process.getuid?.() !== 0) return 'only root can boot a machine'
  for (const program of ['systemd-nspawn', 'debootstrap', 'ip', 'nsenter', 'dpkg-deb'])
    if (spawnSync('sh', ['-c', `PATH=$PATH:/usr/sbin command -v ${program}`]).status !== 0)
      return `${program} is not here`
  return undefined
}

let passed = 0
let failed = 0
let skipped = 0

async function step(title: string, action: () => Promise<void>): Promise<void> {
  const began = performance.now()
  try {
    await action()
    passed++
    say(`ok      ${title} (${((performance.now() - began) / 1000).toFixed(1)} s)`)
  } catch (error) {
    failed++
    say(`FAILED  ${title}\n${String(error).replace(/^/gm, '        ')}`)
    throw error
  }
}

function holds(claim: boolean, what: string): void {
  if (!claim) throw new Error(`this does not hold: ${what}`)
}

const online = 'certvend status --check >/dev/null'

async function scenario(machine: Machine, lab: Lab, packages: readonly string[]): Promise<void> {
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
    lab.requests.filter(({ status, path }) => status === 200 && path.endsWith('enroll')).length
  const diagnosed = async (command = 'certvend doctor --json'): Promise<string> => {
    const { code, stdout, stderr } = await machine.run(command)
    const { healthy, cause } = JSON.parse(stdout || `{"cause":${JSON.stringify(stderr)}}`)
    const verdict = `${code} ${healthy ? 'healthy' : cause}`
    if (!healthy) say(`        doctor: ${verdict}`)
    return verdict
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

  await step('an upgrade goes on with the credential that is there', async () => {
    const pid = await mainPid()
    await shell('dpkg --install /root/second.deb')
    await machine.until(
      `test "$(systemctl show certvend --property=MainPID --value)" != ${pid} && ${online}`,
    )
    holds(
      (await shell('head -n 1 /etc/certvend/agent.toml')).startsWith('url'),
      'the configuration stays',
    )
    holds(issued() === 1, 'no new certificate')
  })

  await step('removal stops it and keeps the credential; purge leaves nothing', async () => {
    await shell('dpkg --remove certvend')
    await shell('test -d /var/lib/private/certvend/generations')
    await shell('! pgrep -f share/certvend')
    await shell('dpkg --purge certvend')
    const left = await shell(
      'find / -xdev \\( -name "*certvend*" -o -name private-key.pem \\) -not -path "/proc/*" -not -path "/root/*" -not -path "/var/log/*" 2>/dev/null',
    )
    holds(left === '', `nothing is left:\n${left}`)
  })

  await step('installed again, with a token that systemd-creds has encrypted: online', async () => {
    const next = await lab.addDevice('gateway-0002')
    await shell('dpkg --install /root/second.deb')
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
    holds(issued() === 2, 'a certificate of its own')
  })
}

async function otherProcessors(cache: string, directory: string, deb: string): Promise<void> {
  const unpacked = path.join(directory, 'unpacked')
  await host('dpkg-deb', '--extract', deb, unpacked)
  for (const processor of processors) {
    const { name } = processor
    const title = `the package on ${name}: first boot to an acknowledged publish`
    const reason = missingEmulator(processor)
    if (reason) {
      skipped++
      say(`skipped ${title}: ${reason}`)
      continue
    }
    await step(title, async () => {
      const system = await foreignSystem(cache, processor)
      const events = await firstBoot(processor, {
        system,
        unpacked,
        state: path.join(directory, name),
      })
      holds(events.includes('enroll.done'), `it enrolls: ${events.join(', ')}`)
      holds(events.includes('publish.acknowledged'), `it publishes: ${events.join(', ')}`)
    })
  }
}

async function main(part = process.argv[2]): Promise<void> {
  const reason = missing()
  if (reason) {
    say(`skipped: ${reason}\ngateway: 0 passed, 0 failed, 1 skipped`)
    return
  }
  const cache = path.join(process.env.XDG_CACHE_HOME ?? path.join(homedir(), '.cache'), 'certvend')
  const directory = fs.mkdtempSync(path.join(tmpdir(), 'certvend-gateway-'))
  const script = path.join(root, 'packages/agent/packaging/deb.mjs')
  let machine: Machine | undefined
  let lab: Lab | undefined
  try {
    let base: string
    try {
      base = await baseSystem(cache)
    } catch (error) {
      say(
        `skipped: no Debian to boot (${String(error).split('\n')[0]})\ngateway: 0 passed, 0 failed, 1 skipped`,
      )
      return
    }
    const packages = ['0.1.0~previous', '0.1.0'].map((version) => {
      execFileSync(process.execPath, [script, '--out', directory, '--debian-version', version])
      return path.join(directory, `certvend_${version}_all.deb`)
    })
    if (part !== 'handing-on') {
      await otherProcessors(cache, directory, packages[1] ?? '')
      machine = await buildMachine(base, path.join(directory, 'service'))
      lab = await startLab({ address: hostAddress })
      await scenario(machine, lab, packages)
      await machine.destroy()
      machine = undefined
    }
    if (part !== 'service') {
      machine = await buildMachine(base, path.join(directory, 'handing-on'))
      await handingOn(machine, packages[1] ?? '', { step, holds, say })
    }
  } catch (error) {
    if (failed === 0) throw error
    const log = await machine?.run(
      "journalctl --unit 'certvend*' --unit mosquitto --unit far --no-pager --output cat --lines 40; cat /run/far.log; ls -lR /etc/mosquitto; cat /etc/mosquitto/conf.d/*.conf; ls -la /var/log/mosquitto",
    )
    if (log) say(`\nThe end of its journal:\n${log.stdout}`)
  } finally {
    await machine?.destroy()
    await lab?.close()
    await host('rm', '-rf', directory)
    if (passed + failed > 0) say(`gateway: ${passed} passed, ${failed} failed, ${skipped} skipped`)
    process.exitCode = failed === 0 ? 0 : 1
  }
}

await main()
