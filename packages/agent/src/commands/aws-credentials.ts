/** `certvend aws-credentials`: temporary AWS credentials, as `credential_process` of the AWS SDKs wants them. */
import { readFileSync } from 'node:fs'
import { openCredentialStore } from '@certvend/client'
import { configurationError, type ExitCode } from '../failure.ts'
import { proxyPlace } from '../proxy.ts'
import { type Flags, resolveSettings } from '../settings.ts'
import type { Terminal } from '../terminal.ts'

export interface AwsFlags extends Flags {
  readonly endpoint: string
  readonly roleAlias: string
  readonly ca?: string
}

export async function awsCredentials(flags: AwsFlags, terminal: Terminal): Promise<ExitCode> {
  const { stateDirectory } = await resolveSettings(flags)
  proxyPlace()
  const store = await openCredentialStore(stateDirectory, { readOnly: true })
  const credential = store.current()
  if (!credential)
    throw configurationError(
      `${stateDirectory} holds no credential`,
      'certvend enroll gets one; --state-dir or --config says where it is',
    )
  const roleAlias = {
    name: flags.roleAlias,
    endpoint: flags.endpoint,
    ...(flags.ca === undefined ? {} : { trustAnchors: readCa(flags.ca) }),
  }
  const { fetchAwsCredentials } = await import('@certvend/client/aws-credentials')
  const { accessKeyId, secretAccessKey, sessionToken, expiration } = await fetchAwsCredentials(
    credential,
    roleAlias,
  ).catch((error: unknown) => {
    throw error instanceof TypeError ? configurationError(error.message) : error
  })
  // The one place where these secrets leave the process; stderr must never hold them.
  terminal.out(
    JSON.stringify({
      Version: 1,
      AccessKeyId: accessKeyId,
      SecretAccessKey: secretAccessKey,
      SessionToken: sessionToken,
      Expiration: expiration.toISOString(),
    }),
  )
  return 0
}

function readCa(file: string): string {
  try {
    return readFileSync(file, 'utf8')
  } catch (error) {
    throw configurationError(`--ca: cannot read ${file} (${(error as NodeJS.ErrnoException).code})`)
  }
}
