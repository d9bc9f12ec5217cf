/** `certvend forget`: factory reset. The vending machine revokes the certificate, and nothing of it stays here. */
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import {
  CertvendError,
  type Credential,
  eraseHere,
  eraseStore,
  isCertvendError,
  openCredentialStore,
  systemClock,
} from '@certvend/client'
import type { Owner } from '@certvend/client/durable'
import { readVendingServer } from '../enrollment.ts'
import { configurationError, type ExitCode } from '../failure.ts'
import { type Forgotten, tell } from '../forget.ts'
import { type Flags, resolveSettings, type Settings } from '../settings.ts'
import type { Terminal } from '../terminal.ts'
import { hasAgent, throughAgent } from '../through-agent.ts'

export async function forget(flags: Flags, terminal: Terminal): Promise<ExitCode> {
  const settings = await resolveSettings(flags)
  const { stateDirectory, socketDirectory, tokenFile } = settings
  const credential = await stored(stateDirectory)
  const whose = credential ? `key and certificate of ${credential.deviceSerial}` : 'what is left'
  if (!flags.yes) {
    const answer = await terminal.ask(
      `Remove the ${whose} in ${stateDirectory} for good? Another certificate takes a re-armed claim. yes/no:`,
    )
    if (answer === undefined)
      throw configurationError(
        'forget asks before it removes anything, and nobody could answer here',
        'if you mean it: certvend forget --yes',
      )
    if (!/^y(es)?$/i.test(answer)) {
      terminal.progress('nothing was removed')
      return 1
    }
  }
  const forgotten = (await hasAgent(socketDirectory))
    ? ((await throughAgent(socketDirectory, { do: 'forget' })) as Forgotten)
    : await forgetHere(settings, credential)
  say(forgotten, flags, terminal)
  if (tokenFile && existsSync(tokenFile.value))
    terminal.warn(`the token file ${tokenFile.value} is yours and was left`, 'remove it yourself')
  return 0
}

/** What root starts as the owner of a store, in its directory; no command for people. */
export const eraseHereErrand = 'erase-here'

/** That errand: erases the store in the working directory. */
export function eraseInPlace(): ExitCode {
  eraseHere()
  return 0
}

/** Node does not let root become somebody else for good; a process of its own may be. */
function eraseAsOwner(directory: string, { uid, gid }: Owner): void {
  const [script = ''] = process.argv.slice(1)
  const { status, error } = spawnSync(process.execPath, [script, eraseHereErrand], {
    cwd: directory,
    uid,
    gid,
    stdio: ['ignore', 'ignore', 'inherit'],
  })
  if (status !== 0)
    throw new CertvendError('ERR_STORE_UNWRITABLE', `${directory} was not erased`, {
      cause: error,
      hint: `erase it as its owner, user ${uid}`,
    })
}

/** A store that cannot be read is erased all the same. */
async function stored(stateDirectory: string): Promise<Credential | undefined> {
  try {
    return (await openCredentialStore(stateDirectory, { readOnly: true })).current()
  } catch (error) {
    if (isCertvendError(error, 'ERR_STORE_CORRUPT')) return undefined
    if (isCertvendError(error, 'ERR_STORE_UNSAFE')) return undefined
    throw error
  }
}

async function forgetHere(
  settings: Settings,
  credential: Credential | undefined,
): Promise<Forgotten> {
  const untold = credential
    ? await tell(credential, {
        vendingServer: () => readVendingServer(settings),
        signal: new AbortController().signal,
        clock: systemClock,
        log: () => {}, // said below
      })
    : 'there was no certificate'
  const { directory } = eraseStore(settings.stateDirectory, eraseAsOwner)
  return {
    stateDirectory: directory,
    ...(credential && {
      deviceSerial: credential.deviceSerial,
      certificateId: credential.certificateId,
    }),
    told: untold === undefined,
    ...(untold === undefined ? {} : { untold }),
  }
}

function say(forgotten: Forgotten, { json }: Flags, terminal: Terminal): void {
  const { stateDirectory, deviceSerial, certificateId, told, untold } = forgotten
  if (json) terminal.out(JSON.stringify(forgotten, undefined, 2))
  else
    terminal.out(
      [
        deviceSerial
          ? `removed the key and certificate of ${deviceSerial} from ${stateDirectory}`
          : `nothing of ours is left in ${stateDirectory}`,
        ...(told ? [`the vending machine has revoked ${certificateId}`] : []),
      ].join('\n'),
    )
  if (!told && certificateId)
    terminal.warn(
      `the vending machine was not told: ${untold}`,
      `revoke it there: certvend-server device show ${deviceSerial}`,
    )
}
