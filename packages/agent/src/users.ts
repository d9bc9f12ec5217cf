/** Users and groups by name, as the system knows them: files, NSS, and systemd's dynamic users. */
import { spawnSync } from 'node:child_process'
import type { Owner } from '@certvend/client/durable'
import { configurationError } from './failure.ts'

/**
 * The numbers of a user and a group; nothing when neither is named.
 *
 * Without a group it is root's group where the owner is another user: the key is for its owner alone.
 *
 * @throws a configuration error for a name that nobody has
 */
export function ownerOf({
  owner,
  group,
}: {
  readonly owner?: string
  readonly group?: string
}): Owner | undefined {
  if (owner === undefined && group === undefined) return undefined
  return {
    uid: owner === undefined ? 0 : numberOf('passwd', owner),
    gid: group === undefined ? 0 : numberOf('group', group),
  }
}

function numberOf(database: 'passwd' | 'group', name: string): number {
  const found = spawnSync('getent', [database, name], { encoding: 'utf8', timeout: 10_000 })
  const number = /^[^:]*:[^:]*:(\d+):/.exec(found.stdout ?? '')?.[1]
  if (number !== undefined) return Number(number)
  const what = database === 'passwd' ? 'user' : 'group'
  throw configurationError(`there is no ${what} ${name} on this machine`)
}
