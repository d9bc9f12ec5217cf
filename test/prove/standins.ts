/**
 * What the prover replaces for speed and repetition, none of it touching a file: the key generator,
 * by one that gives the same keys in the same order; the reader of private keys, by one that does not
 * read the same text twice; and the `flock` command, by its success.
 */
import childProcess from 'node:child_process'
import crypto from 'node:crypto'
import { syncBuiltinESMExports } from 'node:module'

export interface StandIns {
  /** From here on keys come from `series`, the first one first. */
  rewind(series: string): void
  remove(): void
}

export function installStandIns(): StandIns {
  const { generateKeyPairSync, createPrivateKey } = crypto
  const { spawnSync } = childProcess
  const keys = new Map<string, unknown>()
  let series = ''
  let next = 0
  const put = (name: string, value: unknown, on: object): void => {
    Object.assign(on, { [name]: value })
    syncBuiltinESMExports()
  }
  put(
    'generateKeyPairSync',
    (...parameters: Parameters<typeof generateKeyPairSync>) => {
      if (series === '') return generateKeyPairSync(...parameters)
      const place = `${series} ${next++}`
      const pair = keys.get(place) ?? generateKeyPairSync(...parameters)
      keys.set(place, pair)
      return pair
    },
    crypto,
  )
  let read = new Map<string, crypto.KeyObject>()
  put(
    'createPrivateKey',
    (key: Parameters<typeof createPrivateKey>[0]) => {
      if (typeof key !== 'string') return createPrivateKey(key)
      const known = read.get(key) ?? createPrivateKey(key)
      if (read.size > 1000) read = new Map()
      read.set(key, known)
      return known
    },
    crypto,
  )
  put(
    'spawnSync',
    (...parameters: Parameters<typeof spawnSync>) =>
      parameters[0] === 'flock' ? { status: 0 } : spawnSync(...parameters),
    childProcess,
  )
  return {
    rewind(name) {
      series = name
      next = 0
    },
    remove() {
      put('generateKeyPairSync', generateKeyPairSync, crypto)
      put('createPrivateKey', createPrivateKey, crypto)
      put('spawnSync', spawnSync, childProcess)
    },
  }
}
