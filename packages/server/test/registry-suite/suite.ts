/**
 * One conformance suite for every registry: the sentences of this folder, against a registry that is
 * real and empty for each of them.
 */
import { afterAll, afterEach, beforeAll, beforeEach, describe } from 'vitest'
import type { Registry } from '../../src/registry/registry.ts'
import { againSentences } from './again.ts'
import { certificateSentences } from './certificate.ts'
import { deviceSentences } from './device.ts'
import { raceSentences } from './race.ts'
import { reservationSentences } from './reservation.ts'
import { trailSentences } from './trail.ts'

/** An empty database of the kind that is tried. */
export interface Place {
  /** Opens it, every time through a connection of its own. */
  open(): Promise<Registry>
  remove(): Promise<void>
}

/** A running database server, or a folder for files. */
export interface Home {
  make(): Promise<Place>
  stop(): Promise<void>
}

export interface Suite {
  readonly registry: Registry
  readonly place: Place
}

export function describeRegistry(
  name: string,
  start: () => Promise<Home>,
  options: { readonly skip?: string | undefined } = {},
): void {
  const { skip } = options
  describe.skipIf(skip)(`the registry in ${name}${skip ? ` (${skip})` : ''}`, () => {
    let home: Home
    let place: Place
    let registry: Registry
    beforeAll(async () => {
      home = await start()
    }, 60_000)
    afterAll(() => home?.stop())
    beforeEach(async () => {
      place = await home.make()
      registry = await place.open()
    })
    afterEach(async () => {
      await registry.close()
      await place.remove()
    })
    const suite: Suite = {
      get registry() {
        return registry
      },
      get place() {
        return place
      },
    }
    deviceSentences(suite)
    reservationSentences(suite)
    certificateSentences(suite)
    againSentences(suite)
    trailSentences(suite)
    raceSentences(suite)
  })
}
