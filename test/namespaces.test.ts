/**
 * Networks as they are out there, in namespaces of this machine: the direct road closed and a proxy
 * beside it, IPv6 only, names that come and go, addresses that answer late.
 */
import { spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import {
  cable,
  filterMissing,
  makeNamespace,
  type Namespace,
  namespacesMissing,
  nextJson,
} from './namespaces.ts'
import { temporaryDirectory } from './temporary.ts'

const tinyproxyMissing =
  namespacesMissing ??
  (spawnSync('tinyproxy', ['-v']).error ? 'tinyproxy is not installed' : undefined)

const skipping = (reason: string | undefined): string => (reason ? ` (skipped: ${reason})` : '')

interface World {
  readonly vendingUrl: string
  readonly pins: string
  readonly deviceSerial: string
  readonly token: string
}

/** A lab with the ports of the real thing, known as `host`. */
async function openLab(where: Namespace, address: string, host: string): Promise<World> {
  const script = `
    import { startLab } from '@certvend/server/lab'
    const lab = await startLab({
      address: '${address}', host: '${host}', ports: { vending: 443, mqtt: 8883 },
    })
    const { vendingUrl, pins } = lab
    console.log(JSON.stringify({ vendingUrl, pins, ...(await lab.addDevice('gateway-1')) }))
  `
  return nextJson(where.start(process.execPath, ['--input-type=module', '-e', script]))
}

/** What firmware does: enroll, connect, publish; and how it went. */
const firmware = `
  import { text } from 'node:stream/consumers'
  import {
    connect, createClaim, createVendingServer, ensureCredential, openCredentialStore,
  } from '@certvend/client'
  const { vendingUrl, pins, directory, deadlineMs, once, ...claim } = JSON.parse(await text(process.stdin))
  const tell = (outcome) => console.log(JSON.stringify(outcome))
  const failures = []
  const enough = new AbortController()
  const signal = AbortSignal.any([enough.signal, AbortSignal.timeout(20_000)])
  const options = {
    signal, deadlineMs, backoff: { baseMs: 50, capMs: 300 },
    log: (event) => {
      if (event.event !== 'enroll.retry') return
      failures.push(event.error.code + ': ' + event.error.message)
      if (once) enough.abort()
    },
  }
  try {
    const store = await openCredentialStore(directory)
    const server = createVendingServer({ url: vendingUrl, pins })
    const credential = await ensureCredential(store, server, createClaim(claim), options)
    const session = await connect(credential, { signal, deadlineMs })
    await session.publish('devices/gateway-1/hello', 'hello')
    await session.close()
    tell({ published: true, failures })
  } catch (error) {
    tell({ published: false, failures: [...failures, (error.code ?? error.name) + ': ' + error.message] })
  }
`
interface Outcome {
  readonly published: boolean
  readonly failures: readonly string[]
}

function boot(
  where: Namespace,
  world: World,
  env: Readonly<Record<string, string>> = {},
  { deadlineMs = 5000, once = false } = {},
): Promise<Outcome> {
  const directory = path.join(temporaryDirectory(), 'state')
  return where.script(firmware, { ...world, directory, deadlineMs, once }, env)
}

/** Device – proxy – server, one network between each two; nothing is forwarded. */
async function behindProxy() {
  const hosts = '10.77.2.2 lab.example'
  const device = makeNamespace('device')
  const middle = makeNamespace('proxy', { hosts })
  const far = makeNamespace('server')
  cable([device, '10.77.1.2/24'], [middle, '10.77.1.1/24'])
  cable([middle, '10.77.2.1/24'], [far, '10.77.2.2/24'])
  middle.run('sysctl', '-qw', 'net.ipv4.ip_forward=0')
  return { device, middle, world: await openLab(far, '0.0.0.0', 'lab.example') }
}

/** Resolves when something listens there. */
function listens(where: Namespace, address: string, port: number): void {
  const probe = `for i in $(seq 100); do (exec 3<>/dev/tcp/${address}/${port}) 2>/dev/null && exit 0; sleep 0.1; done; exit 1`
  where.run('bash', '-c', probe)
}

describe.skipIf(namespacesMissing)(`behind a proxy${skipping(namespacesMissing)}`, () => {
  const ourProxy = fileURLToPath(new URL('dist/http-proxy.js', import.meta.url))

  it('both halves get through with credentials, where no other road leads out', async () => {
    const { device, middle, world } = await behindProxy()
    middle.start(process.execPath, [ourProxy, '10.77.1.1', '3128', 'gateway:s3cret'])
    listens(device, '10.77.1.1', 3128)
    const HTTPS_PROXY = 'http://gateway:s3cret@10.77.1.1:3128'

    const direct = await boot(device, world, {}, { once: true })
    expect(direct.published).toBe(false)
    expect(direct.failures[0]).toMatch(/^ERR_NETWORK: cannot find the address of lab\.example/)

    const refused = await boot(
      device,
      world,
      { HTTPS_PROXY: 'http://10.77.1.1:3128' },
      { once: true },
    )
    expect(refused.failures[0]).toMatch(
      /^ERR_PROXY: proxy 10\.77\.1\.1:3128 refused CONNECT \(407\)/,
    )

    expect(await boot(device, world, { HTTPS_PROXY })).toEqual({ published: true, failures: [] })
    const exempt = { HTTPS_PROXY, NO_PROXY: '.example' }
    expect((await boot(device, world, exempt, { once: true })).published).toBe(false)
  })

  it('the agent gets through by its environment alone', async () => {
    const { device, middle, world } = await behindProxy()
    middle.start(process.execPath, [ourProxy, '10.77.1.1', '3128', 'gateway:s3cret'])
    listens(device, '10.77.1.1', 3128)
    const folder = temporaryDirectory()
    const file = (name: string, content: string): string => {
      fs.writeFileSync(path.join(folder, name), content, { mode: 0o600 })
      return path.join(folder, name)
    }
    const flags = {
      server: world.vendingUrl,
      pin: file('pin.pem', world.pins),
      serial: world.deviceSerial,
      'token-file': file('token', world.token),
      'state-dir': path.join(folder, 'state'),
    }
    const words = Object.entries(flags).flatMap(([name, value]) => [`--${name}`, value])
    const main = fileURLToPath(new URL('../packages/agent/dist/main.js', import.meta.url))
    const env = { HTTPS_PROXY: 'http://gateway:s3cret@10.77.1.1:3128', HOME: folder }
    const child = device.start(process.execPath, [main, 'run', '--once', ...words], env)
    const exited = once(child, 'exit')
    const log = await text(child.stdout as NodeJS.ReadableStream)
    const events = log
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).event)
    expect(events).toEqual(
      expect.arrayContaining(['enroll.done', 'session.open', 'publish.acknowledged']),
    )
    expect(log).not.toContain('s3cret')
    expect((await exited)[0]).toBe(0)
  })

  it('a road that swallows packets costs the deadline, and the proxy still leads out', async () => {
    const { device, middle, world } = await behindProxy()
    middle.start(process.execPath, [ourProxy, '10.77.1.1', '3128'])
    listens(device, '10.77.1.1', 3128)
    device.run('ip', 'route', 'add', 'default', 'via', '10.77.1.1')
    const direct = { ...world, vendingUrl: 'https://10.77.2.2' }
    const lost = await boot(device, direct, {}, { deadlineMs: 400, once: true })
    expect(lost.failures[0]).toBe('ERR_TIMEOUT: 10.77.2.2:443 did not answer within 0.4 s')
    const HTTPS_PROXY = 'http://10.77.1.1:3128'
    expect(await boot(device, world, { HTTPS_PROXY })).toEqual({ published: true, failures: [] })
  })
})

describe.skipIf(tinyproxyMissing)(`behind tinyproxy${skipping(tinyproxyMissing)}`, () => {
  async function tinyproxy(...lines: readonly string[]) {
    const network = await behindProxy()
    const file = path.join(temporaryDirectory(), 'tinyproxy.conf')
    fs.writeFileSync(
      file,
      ['Port 3128', 'Listen 10.77.1.1', 'Timeout 60', 'MaxClients 20', ...lines, ''].join('\n'),
    )
    network.middle.start('tinyproxy', ['-d', '-c', file])
    listens(network.device, '10.77.1.1', 3128)
    return network
  }

  it('both halves get through with credentials', async () => {
    const { device, world } = await tinyproxy('BasicAuth gateway s3cret')
    const HTTPS_PROXY = 'http://gateway:s3cret@10.77.1.1:3128'
    expect(await boot(device, world, { HTTPS_PROXY })).toEqual({ published: true, failures: [] })
    const wrong = { HTTPS_PROXY: 'http://gateway:wrong@10.77.1.1:3128' }
    const { failures } = await boot(device, world, wrong, { once: true })
    expect(failures[0]).toMatch(
      /^ERR_PROXY: proxy 10\.77\.1\.1:3128 refused CONNECT \(401\): it does not accept/,
    )
  })

  it('one that lets CONNECT go to port 443 only is named when MQTT asks for 8883', async () => {
    const { device, world } = await tinyproxy('ConnectPort 443')
    const HTTPS_PROXY = 'http://10.77.1.1:3128'
    const { published, failures } = await boot(device, world, { HTTPS_PROXY })
    expect(published).toBe(false)
    expect(failures).toEqual([
      'ERR_PROXY: proxy 10.77.1.1:3128 refused CONNECT to lab.example:8883 (403)',
    ])
  })
})

describe.skipIf(namespacesMissing)(`IPv6 only${skipping(namespacesMissing)}`, () => {
  it('both halves get through', async () => {
    const device = makeNamespace('device', { hosts: 'fd77::2 lab.example' })
    const far = makeNamespace('server')
    cable([device, 'fd77::1/64'], [far, 'fd77::2/64'])
    const world = await openLab(far, '::', 'lab.example')
    expect(device.run('ip', '-4', 'address', 'show', 'scope', 'global')).toBe('')
    expect(await boot(device, world)).toEqual({ published: true, failures: [] })
  })

  it('both halves get through a proxy, with the IPv4 addresses of the server unreachable', async () => {
    const device = makeNamespace('device')
    const middle = makeNamespace('proxy', { hosts: 'fd77:2::2 lab.example' })
    const far = makeNamespace('server')
    cable([device, 'fd77:1::2/64'], [middle, 'fd77:1::1/64'])
    cable([middle, 'fd77:2::1/64'], [far, 'fd77:2::2/64'])
    const world = await openLab(far, '::', 'lab.example')
    const ourProxy = fileURLToPath(new URL('dist/http-proxy.js', import.meta.url))
    middle.start(process.execPath, [ourProxy, 'fd77:1::1', '3128', 'gateway:s3cret'])
    listens(device, 'fd77:1::1', 3128)
    const HTTPS_PROXY = 'http://gateway:s3cret@[fd77:1::1]:3128'
    expect(await boot(device, world, { HTTPS_PROXY })).toEqual({ published: true, failures: [] })
  })
})

describe.skipIf(filterMissing)(`a slow link${skipping(filterMissing)}`, () => {
  it('gets through though no address answers within a quarter of a second', async () => {
    // Three of each family, as IoT Core has. IPv4 is swallowed, and comes last; over IPv6 a connection
    // takes a second, because its first SYN is lost.
    const v6 = ['fd77::2', 'fd77::3', 'fd77::4']
    const v4 = ['192.0.2.2', '192.0.2.3', '192.0.2.4']
    const device = makeNamespace('device', {
      hosts: [...v6, ...v4].map((address) => `${address} lab.example`).join('\n'),
    })
    const far = makeNamespace('server')
    cable(
      [device, 'fd77::1/64', '192.0.2.1/24'],
      [far, ...v6.map((address) => `${address}/64`), ...v4.map((address) => `${address}/24`)],
    )
    far.run('nft', 'add table ip hole')
    far.run('nft', 'add chain ip hole in { type filter hook input priority 0 ; policy drop ; }')
    device.run('nft', 'add table ip6 slow')
    device.run('nft', 'add chain ip6 slow out { type filter hook output priority 0 ; }')
    device.run(
      'nft',
      'add set ip6 slow seen { type ipv6_addr . inet_service ; flags dynamic ; timeout 1m ; }',
    )
    for (const rule of [
      'ip6 daddr . tcp sport @seen accept',
      'tcp flags & (syn|ack) == syn add @seen { ip6 daddr . tcp sport } drop',
    ])
      device.run('nft', `add rule ip6 slow out ${rule}`)
    const world = await openLab(far, '::', 'lab.example')
    expect(await boot(device, world)).toEqual({ published: true, failures: [] })
  })
})

describe.skipIf(namespacesMissing)(`names${skipping(namespacesMissing)}`, () => {
  it('that are not found, and then are, delay and do nothing else', async () => {
    const device = makeNamespace('device', { resolver: '10.77.3.2' })
    const far = makeNamespace('server')
    cable([device, '10.77.3.1/24'], [far, '10.77.3.2/24'])
    const world = await openLab(far, '0.0.0.0', 'lab.example')
    // A name server that fails four times, then knows: A 10.77.3.2 for everything, and no AAAA.
    far.start(process.execPath, [
      '--input-type=module',
      '-e',
      `
        import { createSocket } from 'node:dgram'
        const server = createSocket('udp4')
        const began = Date.now()
        server.on('message', (query, peer) => {
          const end = query.indexOf(0, 12) + 5
          const question = query.subarray(12, end)
          const isA = query.readUInt16BE(end - 4) === 1
          const late = Date.now() - began > 1500
          const answer = Buffer.from([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4, 10, 77, 3, 2])
          const head = Buffer.from([query[0], query[1], 0x81, late ? 0x80 : 0x82, 0, 1, 0, late && isA ? 1 : 0, 0, 0, 0, 0])
          server.send(Buffer.concat([head, question, ...(late && isA ? [answer] : [])]), peer.port, peer.address)
        })
        server.bind(53, '10.77.3.2')
      `,
    ])
    const { published, failures } = await boot(device, world)
    expect(published).toBe(true)
    expect(failures.length).toBeGreaterThan(0)
    for (const failure of failures)
      expect(failure).toMatch(/^ERR_NETWORK: cannot find the address of lab\.example:443 \(E\w+\)$/)
  })
})
