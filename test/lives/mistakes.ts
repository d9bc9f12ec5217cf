/** Devices that make a mistake, each of which the witness must catch. */
import fs from 'node:fs'
import path from 'node:path'
import { boot, type Device, type Ending } from './device.ts'

export interface Mistake {
  readonly name: string
  readonly boot: (device: Device) => Promise<Ending>
}

const has = ({ directory }: Device, link: string): boolean =>
  fs.existsSync(path.join(directory, link))
const removeBehind = ({ directory }: Device, link: string): void => {
  const target = path.join(directory, link)
  if (!fs.existsSync(target)) return
  fs.rmSync(fs.realpathSync(target), { recursive: true })
  fs.rmSync(target)
}

export const mistakes: readonly Mistake[] = [
  {
    name: 'another key at every boot',
    boot(device) {
      if (!has(device, 'current')) removeBehind(device, 'pending')
      return boot(device)
    },
  },
  {
    name: 'Retry-After forgotten with the power',
    boot(device) {
      fs.rmSync(path.join(device.directory, 'pending', 'request.json'), { force: true })
      return boot(device)
    },
  },
  {
    name: 'no wait between attempts',
    boot: (device) =>
      boot({ ...device, clock: { ...device.clock, wait: () => device.clock.wait(1) } }),
  },
  {
    name: 'a request although there is a credential',
    boot: (device) => boot({ ...device, again: true }),
  },
  {
    name: 'the old credential dropped when a successor is wanted',
    boot(device) {
      if (device.again) removeBehind(device, 'current')
      return boot(device)
    },
  },
  {
    name: 'a successor promoted that opened no session',
    boot: (device) =>
      boot({
        ...device,
        door: async (credential) => {
          const pending = path.join(device.directory, 'pending')
          const unproven =
            fs.existsSync(pending) &&
            Number(path.basename(fs.realpathSync(pending))) === credential.generation
          return unproven || device.door(credential)
        },
      }),
  },
  {
    name: 'everything dropped when the server refuses',
    async boot(device) {
      const ending = await boot(device)
      if (ending.as === 'told') fs.rmSync(device.directory, { recursive: true, force: true })
      return ending
    },
  },
  {
    name: 'a refusal taken for the end of the matter',
    async boot(device) {
      const ending = await boot(device)
      return ending.as === 'told' ? { as: 'online', certificateId: '' } : ending
    },
  },
]
