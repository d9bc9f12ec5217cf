/** Checks of the state directory: whose it is, what is in it, and where it lies. */
import { day, duration } from '../../wording.ts'
import { type Check, unknown } from '../finding.ts'

const leastBytes = 256 * 1024
const leastInodes = 16
const oldKey = 'no state directory is known'

export const storeSafety: Check = {
  name: 'store-safety',
  symptom: 'ERR_STORE_UNSAFE or ERR_STORE_UNREADABLE',
  looks:
    'Whether the state directory and its parents belong to root or this user, and nobody else can write there.',
  advice:
    'The message has the command that mends it. Run the command as root, or as the user that the directory belongs to.',
  judge({ store, daemon }) {
    if (!store) return unknown(oldKey)
    const { problem } = store
    if (store.exposed.length > 0) return 'fine' // told by file-modes
    if (problem?.code === 'ERR_STORE_UNREADABLE' && daemon?.status)
      return unknown('this user may not look into it, and the agent answers')
    if (daemon?.status && /belongs to user/.test(problem?.message ?? ''))
      return unknown('it belongs to another user, whose agent answers')
    if (problem?.code !== 'ERR_STORE_UNSAFE' && problem?.code !== 'ERR_STORE_UNREADABLE')
      return 'fine'
    return {
      found: problem.message.split('; mend it: ')[0] ?? problem.message,
      expected: 'a directory that root or this user owns, and nobody else may change',
      mend: problem.message.split('; mend it: ')[1] ?? problem.hint,
      care: 'act',
    }
  },
}

export const key: Check = {
  name: 'key',
  symptom: 'The certificate is for another key',
  looks: 'Whether the private key is the one that the certificate was issued for.',
  advice:
    'Somebody put files of two generations together, by a restore or by hand. Restore the whole state directory from one moment; else re-arm the device and enroll again.',
  after: ['store-safety'],
  judge({ store, keyOfAnother }) {
    if (!store) return unknown(oldKey)
    if (!keyOfAnother) return 'fine'
    return {
      found: `the certificate in ${store.directory}/current is for another key than the one beside it`,
      expected: 'key and certificate of one generation',
      mend: 'restore the whole directory from one moment; else re-arm the device (certvend-server device rearm SERIAL), move the directory away and enroll again',
      care: 'act',
    }
  },
}

export const storeWhole: Check = {
  name: 'store',
  symptom: 'ERR_STORE_CORRUPT, or the device asks for a certificate that it had',
  looks: 'Whether what lies in the state directory is whole.',
  advice:
    '`certvend store check` says more. A crash never does this; a failing disk or a hand does. Re-arm the device, move the directory away, and enroll again.',
  after: ['store-safety', 'key'],
  judge({ store }) {
    if (!store) return unknown(oldKey)
    const { problem } = store
    if (store.exposed.length > 0) return unknown('the key is open to others, and is not read')
    if (problem && !/^ERR_STORE_(UNSAFE|UNREADABLE)$/.test(problem.code))
      return {
        found: problem.message,
        expected: 'a whole credential, or none',
        mend: `${problem.hint}; certvend store check ${store.directory} says more`,
        care: 'act',
      }
    const lost = store.wouldMend.find((one) => one.includes(': ') && /damaged/.test(one))
    return lost === undefined
      ? 'fine'
      : {
          found: `damage: opening it would ${lost}`,
          expected: 'a whole credential',
          mend: 'look at the disk (dmesg, smartctl); starting the agent mends what can be mended',
          care: 'act',
        }
  },
}

export const fileSystem: Check = {
  name: 'file-system',
  symptom: 'ERR_STORE_UNWRITABLE: read-only, FAT, or no permission',
  looks: 'Whether the file system can hold a store, and this user may write there.',
  advice:
    'A disk that went read-only has usually failed: look at `dmesg`. FAT and exFAT hold no links and no modes: use ext4, xfs, btrfs or f2fs.',
  after: ['store-safety'],
  judge({ store, space, daemon }) {
    if (!store) return unknown(oldKey)
    const { fileSystem: found } = store
    if (found?.readOnly)
      return {
        found: `${store.directory} lies on a ${found.type} that is mounted read-only`,
        expected: 'a file system that can be written to',
        mend: `look for the reason (dmesg), then: mount -o remount,rw ${space?.at ?? store.directory}`,
        care: 'act',
      }
    if (found?.suitable === false)
      return {
        found: `${store.directory} lies on ${found.type}, which has no links and no modes`,
        expected: 'ext4, xfs, btrfs or f2fs',
        mend: 'name a state directory elsewhere: state_directory = "…"',
        care: 'configure',
      }
    // Whoever runs the agent writes there; others need not.
    if (space?.writable === false && !daemon)
      return {
        found: `this user (${process.getuid?.()}) may not write to ${space.at}`,
        expected: 'a state directory that the agent may write to',
        mend: 'run this as root or as the agent’s user, or name another: --state-dir DIR',
        care: 'configure',
      }
    return 'fine'
  },
}

export const disk: Check = {
  name: 'disk',
  symptom: 'ERR_STORE_UNWRITABLE: no space left',
  looks: 'Whether there is room for the next generation: a quarter of a mebibyte.',
  advice:
    'Make room: `df -h`, `journalctl --vacuum-size=50M`, `apt-get clean`. The stored credential is used all the same.',
  after: ['file-system'],
  judge({ space }) {
    if (!space) return unknown('its file system does not tell')
    if (space.bytes >= leastBytes) return 'fine'
    return {
      found: `${Math.floor(space.bytes / 1024)} KiB are left for ${space.at}`,
      expected: `at least ${leastBytes / 1024} KiB`,
      mend: `make room: df -h ${space.at}`,
      care: 'act',
    }
  },
}

export const inodes: Check = {
  name: 'inodes',
  symptom: 'ERR_STORE_UNWRITABLE: no space left, and `df -h` shows some',
  looks: 'Whether the file system has inodes left.',
  advice: '`df -i` shows it; some program makes files without end.',
  after: ['file-system', 'disk'],
  judge({ space }) {
    if (!space) return unknown('its file system does not tell')
    if (space.inodes === undefined || space.inodes >= leastInodes) return 'fine'
    return {
      found: `${space.inodes} inodes are left for ${space.at}`,
      expected: `at least ${leastInodes}`,
      mend: `remove files that nobody needs: df -i ${space.at}`,
      care: 'act',
    }
  },
}

export const certificate: Check = {
  name: 'certificate',
  symptom: 'The certificate has expired, or nobody renews it',
  looks: 'Until when the certificate is valid, and whether it is renewed when it is time.',
  advice:
    'Compare the clock first. While it is valid `certvend renew` gets another, or says why not. Else re-arm the device: `certvend-server device rearm SERIAL`, and `certvend enroll --again` with the new token.',
  after: ['clock'],
  judge({ credential, daemon, renewal, now }) {
    const stored = credential ?? daemon?.status?.credential
    if (!stored) return unknown('there is none yet')
    const ends = new Date(stored.notAfter)
    const leftMs = ends.getTime() - now.getTime()
    if (leftMs < 0)
      return {
        found: `the certificate expired on ${day(ends)}, ${duration(-leftMs)} ago`,
        expected: 'a certificate that is valid, and renewed after two thirds of its life',
        mend: 'certvend-server device rearm SERIAL on the server, then certvend enroll --again with the new token',
        care: 'act',
      }
    // An attempt that failed for now is made again by itself.
    const failed = daemon?.status?.live?.renewal?.problem
    const trouble = renewal?.obstacle ?? (failed?.remedy === 'retry' ? undefined : failed)
    const isDue = renewal !== undefined && new Date(renewal.dueAt) <= now
    const isLate = leftMs <= (ends.getTime() - new Date(stored.notBefore).getTime()) / 20
    if (!isLate && !(isDue && trouble)) return 'fine'
    const why = trouble ?? failed
    return {
      found: `the certificate expires on ${day(ends)}, in ${duration(leftMs)}, and is not renewed by itself${why ? `: ${why.message}` : ''}`,
      expected: 'a certificate that is valid, and renewed after two thirds of its life',
      mend:
        why?.hint ??
        'certvend renew, which says why not; while the agent runs it is done by itself',
      care: 'act',
    }
  },
}

export const writer: Check = {
  name: 'writer',
  symptom: 'ERR_STORE_LOCKED, or the agent hangs',
  looks: 'Who holds the state directory, and whether that one answers.',
  advice:
    'The lock vanishes with its holder: end the process that the finding names. There is no stale file to delete.',
  judge({ store, daemon }) {
    const holder = store?.lockedBy
    if (holder === undefined) return 'fine'
    if (daemon?.status) return 'fine'
    if (daemon?.closedToUs) return unknown('this user may not ask the agent')
    const who = holder === 0 ? 'another process' : `process ${holder}`
    return {
      found: `${who} holds ${store?.directory}/lock and does not answer`,
      expected: 'an agent that answers, or nobody',
      mend:
        holder === 0
          ? `look who it is, as root: fuser -v ${store?.directory}/lock`
          : `look at it (ps -o stat,args ${holder}), and end it or restart the service`,
      care: 'act',
    }
  },
}
