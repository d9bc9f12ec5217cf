/** The proxy that the environment names: judged before anything is sent, and only its place told. */
import { proxyFor } from '@certvend/client'
import { configurationError } from './failure.ts'

/**
 * Host and port of the proxy that leads out of this network, if one is named.
 *
 * @throws a configuration error, without what the variable holds: it may be a password
 */
export function proxyPlace(environment: NodeJS.ProcessEnv = process.env): string | undefined {
  try {
    return proxyFor({ host: 'anywhere.invalid', port: 443 }, {}, environment)?.place
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    throw configurationError(
      error.message,
      'HTTPS_PROXY=http://USER:PASSWORD@HOST:PORT, special characters percent-encoded',
    )
  }
}
