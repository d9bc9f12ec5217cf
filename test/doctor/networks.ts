/** Faults of the network, each in namespaces of its own. */
import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { cable, makeNamespace, type Namespace, nextJson } from '../namespaces.ts'
import type { FaultName } from './faults.ts'
import type { Injection } from './injection.ts'
import type { Scene } from './scene.ts'

type Named = Namespace & { readonly name: string }

/** Puts the commands of `scene` into a network; the servers of the lab are not in it. */
export function moveInto({ name }: Named, scene: Scene): void {
  scene.prefix = ['ip', 'netns', 'exec', name]
}

/** A device, and a machine at the other end of its cable. */
export function pair(scene: Scene, options: { hosts?: string; resolver?: string } = {}) {
  const device = makeNamespace('device', options)
  const far = makeNamespace('far')
  cable([device, '10.77.3.1/24'], [far, '10.77.3.2/24'])
  moveInto(device, scene)
  return { device, far }
}

/** Drops what comes in for `port`, without a word. */
function drop({ name }: { readonly name: string }, port: number): void {
  const rules = `table ip hole {
 chain in {
 type filter hook input priority 0;
 tcp dport ${port} drop;
 }
}
`
  const { status, stderr } = spawnSync('ip', ['netns', 'exec', name, 'nft', '-f', '-'], {
    input: rules,
    encoding: 'utf8',
  })
  if (status !== 0) throw new Error(`nft: ${stderr}`)
}

/** Opens a lab in `where`, known as lab.example, and makes the scene's device one of its own. */
export async function moveLab(
  where: Named,
  scene: Scene,
  options: { address: string; ports: { vending: number; mqtt: number } },
): Promise<void> {
  const script = `
    import { startLab } from '@certvend/server/lab'
    const lab = await startLab({ host: 'lab.example', ...${JSON.stringify(options)} })
    const { vendingUrl, pins } = lab
    console.log(JSON.stringify({ vendingUrl, pins, ...(await lab.addDevice('gateway-1')) }))
  `
  const world = await nextJson<Record<'vendingUrl' | 'pins' | 'token' | 'deviceSerial', string>>(
    where.start(process.execPath, ['--input-type=module', '-e', script]),
  )
  fs.writeFileSync(scene.at('pin.pem'), world.pins)
  fs.writeFileSync(scene.at('token'), `${world.token}\n`)
  scene.settings.url = world.vendingUrl
  scene.settings.serial = world.deviceSerial
}

const away = (scene: Scene): void => {
  scene.settings.url = 'https://vending.example'
}

/** Answers every question with NXDOMAIN. */
const nameServer = `
  import { createSocket } from 'node:dgram'
  const server = createSocket('udp4')
  server.on('message', (query, peer) => {
    const end = query.indexOf(0, 12) + 5
    const head = Buffer.from([query[0], query[1], 0x81, 0x83, 0, 1, 0, 0, 0, 0, 0, 0])
    server.send(Buffer.concat([head, query.subarray(12, end)]), peer.port, peer.address)
  })
  server.bind(53, '10.77.3.2', () => console.log('ready'))
`

export const networkInjections = {
  'no-network': {
    after: 'nothing',
    inject: (scene) => {
      moveInto(makeNamespace('device'), scene)
      away(scene)
    },
  },
  'no-route': {
    after: 'nothing',
    inject: (scene) => {
      pair(scene, { hosts: '192.0.2.7 vending.example' })
      away(scene)
    },
  },
  'name-server-dead': {
    after: 'nothing',
    inject: (scene) => {
      pair(scene, { resolver: '10.77.3.9' })
      away(scene)
    },
  },
  'name-unknown': {
    after: 'nothing',
    inject: async (scene) => {
      const { far } = pair(scene, { resolver: '10.77.3.2' })
      const server = far.start(process.execPath, ['--input-type=module', '-e', nameServer])
      await new Promise((resolve) => server.stdout?.once('data', resolve))
      away(scene)
    },
  },
  'vending-swallowed': {
    after: 'nothing',
    inject: (scene) => {
      const { far } = pair(scene, { hosts: '10.77.3.2 vending.example' })
      drop(far, 443)
      away(scene)
    },
  },
  'port-8883-closed': {
    after: 'nothing',
    inject: async (scene) => {
      const { far } = pair(scene, { hosts: '10.77.3.2 lab.example' })
      await moveLab(far, scene, { address: '0.0.0.0', ports: { vending: 443, mqtt: 8883 } })
      await scene.enroll()
      drop(far, 8883)
    },
  },
} satisfies Partial<Record<FaultName, Injection>>
