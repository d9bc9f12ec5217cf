/**
 * AWS credentials for whoever asks the daemon: kept in its memory only, and fetched again when somebody
 * asks in the last part of their life. Nobody asking, nothing is fetched.
 */
import { type Clock, type Credential, isCertvendError } from '@certvend/client'
import type {
  AwsCredentials,
  AwsCredentialsOptions,
  RoleAlias,
} from '@certvend/client/aws-credentials'
import { configurationError } from './failure.ts'

/** As `credential_process` of the AWS SDKs has it. */
export interface ProcessCredentials {
  readonly Version: 1
  readonly AccessKeyId: string
  readonly SecretAccessKey: string
  readonly SessionToken: string
  /** ISO 8601. */
  readonly Expiration: string
}

/** The one place where these secrets take a shape that can be printed; no log must ever hold it. */
export const processCredentials = ({
  accessKeyId,
  secretAccessKey,
  sessionToken,
  expiration,
}: AwsCredentials): ProcessCredentials => ({
  Version: 1,
  AccessKeyId: accessKeyId,
  SecretAccessKey: secretAccessKey,
  SessionToken: sessionToken,
  Expiration: expiration.toISOString(),
})

/**
 * One request to the provider.
 *
 * @throws {CertvendError} as `fetchAwsCredentials`; a configuration error when the role alias cannot be used
 */
export async function fetchOnce(
  credential: Credential,
  roleAlias: RoleAlias,
  options?: AwsCredentialsOptions,
): Promise<AwsCredentials> {
  const { fetchAwsCredentials } = await import('@certvend/client/aws-credentials')
  return fetchAwsCredentials(credential, roleAlias, options).catch((error: unknown) => {
    throw error instanceof TypeError ? configurationError(error.message) : error
  })
}

/**
 * SDKs ask again 5 to 15 minutes before the end, and are to get something new then; the shortest
 * life is 15 minutes, so the first third of any is left alone.
 */
const freshForMs = 16 * 60_000
const freshPart = 2 / 3
/** With less left than this, what is held is not worth handing out, in milliseconds. */
const usefulMs = 60_000
/** Roles of one device, not of a fleet. */
const mostHeld = 16

interface Held {
  readonly credentials: AwsCredentials
  readonly fetchedAt: Date
}

/** Gives credentials that last; see {@link fetchOnce} for what it throws. */
export type AwsCache = (credential: Credential, roleAlias: RoleAlias) => Promise<AwsCredentials>

export function openAwsCache(clock: Clock, request: typeof fetchOnce = fetchOnce): AwsCache {
  const held = new Map<string, Held>()
  const asking = new Map<string, Promise<AwsCredentials>>()

  const leftMs = ({ credentials }: Held): number =>
    credentials.expiration.getTime() - clock.now().getTime()
  const isFresh = (one: Held): boolean => {
    const lifeMs = one.credentials.expiration.getTime() - one.fetchedAt.getTime()
    // A clock that was set back is not asked how old something is.
    return clock.now() >= one.fetchedAt && leftMs(one) > Math.min(freshForMs, lifeMs * freshPart)
  }

  async function renew(name: string, ...[credential, roleAlias]: Parameters<AwsCache>) {
    const before = held.get(name)
    try {
      const credentials = await request(credential, roleAlias, { clock })
      held.delete(name)
      held.set(name, { credentials, fetchedAt: clock.now() })
      for (const [oldest] of held) if (held.size > mostHeld) held.delete(oldest)
      return credentials
    } catch (error) {
      const passing = isCertvendError(error) && error.remedy === 'retry'
      if (passing && before && leftMs(before) > usefulMs) return before.credentials
      throw error
    }
  }

  return (credential, roleAlias) => {
    // By certificate, too: what a device was given as another thing is not its own.
    const { name: role, endpoint, trustAnchors = '' } = roleAlias
    const name = JSON.stringify([credential.certificateId, endpoint, role, trustAnchors])
    const known = held.get(name)
    if (known && isFresh(known)) return Promise.resolve(known.credentials)
    const running = asking.get(name)
    if (running) return running
    const under = renew(name, credential, roleAlias).finally(() => asking.delete(name))
    asking.set(name, under)
    return under
  }
}
