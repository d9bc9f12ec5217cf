/** `docs/gateway.md` as it stands: a gateway beside the server of the other page, from the package to purge. */
import fs from 'node:fs'
import path from 'node:path'
import { commandsOf, type Page } from './page.ts'
import { inside, type Site } from './site.ts'

const online = 'certvend status --check'

/** What a test cannot do as a person would. */
const instead: Readonly<Record<string, string>> = {
  'systemctl edit certvend': 'systemctl edit --stdin certvend', // there is no terminal for an editor
  'certvend forget': 'certvend forget --yes', // nor for an answer
  FILE: 'again.token',
}

export async function gateway(site: Site, page: Page, packages: string): Promise<void> {
  const { machine, desk, report } = site
  const { step, holds, say } = report
  const user = 'alice'
  const [building, installing, configuration, starting] = page.take('One gateway')
  const [serials] = page.take('Who is it?')
  const [emptying, encrypting, dropIn] = page.take('Many gateways from one image')
  const [joining, asking, reloading] = page.take('Asking it')
  const [heartbeat] = page.take('Watching many')
  const [another] = page.take('Another certificate, or none')
  if (!building || !installing || !configuration || !starting || !serials || !emptying)
    throw new Error('a section has fewer blocks than it had')
  if (!encrypting || !dropIn || !joining || !asking || !reloading || !heartbeat || !another)
    throw new Error('a section has fewer blocks than it had')

  const give = (name: string): Promise<string> =>
    desk.must(`install -m 600 -o ${user} GW-0001.token /home/${user}/${name}`)
  const configure = (text: string): Promise<void> => desk.put('etc/certvend/agent.toml', text)
  const certificate = (): Promise<string> =>
    desk.must('certvend status --json').then((text) => JSON.parse(text).credential.certificateId)

  await step('gateway.md: a package, three lines, a token: online', async () => {
    holds(
      commandsOf(building)[0]?.line.startsWith('npm run package:deb') === true,
      'how it is built',
    )
    desk.login()
    const [environment] = site.page.take('2')
    await desk.put('etc/certvend-server/environment', environment?.text ?? '')
    await desk.must('systemctl restart certvend-server')
    const [vend] = site.page.take('8')
    if (vend) await desk.type(vend)
    await desk.must('(umask 077; vend device add GW-0001 > GW-0001.token)')
    await desk.must(`useradd --create-home --groups sudo ${user}; rm /usr/local/bin/certvend`)
    await desk.put(`etc/sudoers.d/${user}`, `${user} ALL=(ALL) NOPASSWD: ALL\n`, { mode: 0o440 })
    const deb = 'certvend_0.1.0_all.deb'
    fs.copyFileSync(path.join(packages, deb), inside(site, 'home', user, deb))
    await desk.must(`cp /home/device/pin.pem /home/${user}/vending-ca.pem`)
    await give('claim.token')
    await desk.type(installing, { user })
    await configure(configuration.text)
    await desk.type(starting, { user })
    await machine.until(
      'systemctl show certvend -p StatusText --value | grep "^online as GW-0001 since"',
    )
    await desk.must('rm /etc/certvend/claim.token')
  })

  await step('gateway.md: a member of the group asks it', async () => {
    holds((await desk.try('certvend status', user)).code !== 0, 'before, nobody is told')
    await desk.type(joining, { user })
    const [words, json, , doctor, explained] = await desk.type(asking, { user })
    holds(words?.out.includes('online') === true, JSON.stringify(words))
    holds(JSON.parse(json?.out ?? '').state !== undefined, 'JSON')
    say(`        ${doctor?.out.trim().split('\n')[0]}`)
    say(`        ${explained?.out.trim().split('\n')[0]}`)
    for (const line of (await desk.must('journalctl -u certvend -o cat | grep "^{"')).split('\n'))
      holds(typeof JSON.parse(line).event === 'string', line)
    await desk.must('grep -q "^certvend_online 1" /run/certvend/metrics.prom')
  })

  await step('gateway.md: each way to say who it is', async () => {
    await desk.put('etc/label', 'GW-0001\n')
    await desk.put('usr/local/bin/serial', '#!/bin/sh\necho GW-0001\n', { mode: 0o755 })
    for (const line of serials.text.trim().split('\n')) {
      await configure(configuration.text.replace(/^serial = .*/m, line))
      const { code, out, err } = await desk.try(
        'certvend config check --state-dir ./none --token-file claim.token',
        user,
      )
      if (line.includes('device-tree')) holds(code === 2 && /device tree/.test(err), err)
      else holds(code === 0 && /^serial +GW-0001 /m.test(out), `${line}: ${out}${err}`)
    }
    await configure(`${configuration.text}\n${heartbeat.text}`)
    await desk.type(reloading, { user })
    await machine.until(online)
  })

  await step('gateway.md: another certificate, and none', async () => {
    const first = await certificate()
    const [renew, enroll, forget] = commandsOf(another).map(({ line }) =>
      Object.entries(instead).reduce((text, [here, there]) => text.replace(here, there), line),
    )
    await desk.must(renew ?? '', user)
    const second = await certificate()
    holds(second !== first, 'renewed')
    await desk.must('(umask 077; vend device rearm GW-0001 > GW-0001.token)')
    await give('again.token')
    await desk.must(enroll ?? '', user)
    const third = await certificate()
    holds(third !== second, 'enrolled again')
    await machine.until(online)
    await desk.must(forget ?? '', user)
    const shown = await desk.must('vend device show GW-0001')
    for (const [id, status] of [
      [first, 'INACTIVE'],
      [third, 'REVOKED'],
    ])
      holds(shown.includes(`certificate ${id}\n  ${status},`), `${id} is ${status}: ${shown}`)
  })

  await step('gateway.md: a token that is encrypted for this machine', async () => {
    await desk.must('(umask 077; vend device rearm GW-0001 > GW-0001.token)')
    await give('claim.token')
    await desk.type(encrypting, { user, instead, keyboard: dropIn.text })
    await desk.must('systemctl restart certvend')
    await machine.until(online)
  })

  await step(
    'gateway.md: an image holds no identity, and each machine gets an id of its own',
    async () => {
      const before = await desk.must('cat /etc/machine-id')
      await desk.type(emptying, { user })
      const left = await desk.must(
        'find /var/lib/private /run/certvend -name "private-key.pem" 2>/dev/null || true',
      )
      holds(left === '', left)
      await machine.shutDown()
      await machine.boot()
      holds((await desk.must('cat /etc/machine-id')) !== before, 'another id')
    },
  )

  await step('gateway.md: the exposure that it says; removed, then purged', async () => {
    const verdict = await desk.must('systemd-analyze security --no-pager certvend | tail -n 1')
    const said = /`systemd-analyze security certvend` says (\d\.\d)/.exec(page.text)?.[1]
    holds(verdict.includes(`: ${said} `), `${said}: ${verdict}`)
    await desk.must('apt remove -y certvend 2>/dev/null; test -e /etc/certvend/agent.toml')
    await desk.must('apt purge -y certvend 2>/dev/null; test ! -e /etc/certvend')
    await desk.must('test ! -e /var/lib/private/certvend; getent group certvend')
  })
}
