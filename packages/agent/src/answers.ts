/** What the daemon answers at its doors. */
import type { CredentialStore } from '@certvend/client'
import { type AwsCache, processCredentials } from './aws-cache.ts'
import type { Errands } from './errands.ts'
import { configurationError } from './failure.ts'
import type { Request } from './socket.ts'
import { describeCredential, type StatusDocument } from './status.ts'

export interface AnswersOptions {
  readonly store: CredentialStore
  readonly errands: Errands
  readonly awsCredentials: AwsCache
  readonly status: () => StatusDocument
  /** Begins to read the configuration again. */
  readonly reload: () => void
}

/** The answer to each request; what it throws of ours is an answer, too. */
export function openAnswers(options: AnswersOptions): (request: Request) => unknown {
  const { store, errands } = options
  return (request) => {
    const inUse = store.current()
    switch (request.do) {
      case 'status':
        return options.status()
      case 'reload':
        return options.reload()
      case 'aws-credentials': {
        const { roleAlias: name, endpoint, trustAnchors } = request
        if (!inUse) throw configurationError('this device has no certificate yet')
        const trust = trustAnchors === undefined ? {} : { trustAnchors }
        return options.awsCredentials(inUse, { name, endpoint, ...trust }).then(processCredentials)
      }
      case 'enroll': {
        if (inUse && !request.again) return describeCredential(inUse)
        const { token } = request
        const given = token === undefined ? {} : { token }
        return errands.run(
          inUse
            ? { do: 'renew', by: 'claim', ...given, ...(request.discard ? { discard: true } : {}) }
            : { do: 'enroll', ...given, ...(request.again ? { again: true } : {}) },
        )
      }
      case 'renew':
        return errands.run({ do: 'renew', by: 'credential' })
      case 'forget':
        return errands.run({ do: 'forget' })
    }
  }
}
