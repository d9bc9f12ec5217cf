/** `certvend aws-credentials`: temporary AWS credentials, as `credential_process` of the AWS SDKs wants them. */
import { readFileSync } from 'node:fs'
import { openCredentialStore } from '@certvend/client'
import { fetchOnce, processCredentials } from '../aws-cache.ts'
import { configurationError, type ExitCode } from '../failure.ts'
import { proxyPlace } from '../proxy.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import { ask, resultOf } from '../socket.ts'
import type { Terminal } from '../terminal.ts'

export interface AwsFlags extends Flags {
  readonly endpoint: string
  readonly roleAlias: string
  readonly ca?: string
}

/** For a slow network, in milliseconds; the fetch itself ends after 30 s. */
const longestMs = 40_000

export async function awsCredentials(flags: AwsFlags, terminal: Terminal): Promise<ExitCode> {
  const { stateDirectory, socketDirectory } = await resolveSettings(flags)
  proxyPlace()
  const { endpoint, roleAlias } = flags
  const trust = flags.ca === undefined ? {} : { trustAnchors: readCa(flags.ca) }
  const door = flags.ca === undefined ? 'query' : 'control'
  const request = { do: 'aws-credentials', endpoint, roleAlias, ...trust } as const
  const answer = await ask(socketDirectory, door, request, longestMs)
  const credentials = answer
    ? resultOf(answer)
    : await fromStore(stateDirectory, { name: roleAlias, endpoint, ...trust })
  // The one place where these secrets leave the process; stderr must never hold them.
  terminal.out(JSON.stringify(credentials))
  return 0
}

/** Where no agent runs, or none that this user may ask. */
async function fromStore(stateDirectory: string, roleAlias: Parameters<typeof fetchOnce>[1]) {
  const store = await openCredentialStore(stateDirectory, { readOnly: true })
  const credential = store.current()
  if (!credential)
    throw configurationError(
      `${stateDirectory} holds no credential`,
      'certvend enroll gets one; --state-dir or --config says where it is',
    )
  return processCredentials(await fetchOnce(credential, roleAlias))
}

function readCa(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw configurationError(`--ca: cannot read ${file} (${(error as NodeJS.ErrnoException).code})`)
  }
}
