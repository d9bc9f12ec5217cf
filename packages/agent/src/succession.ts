/**
 * A successor proves itself by opening a session; only then it becomes the credential in use.
 *
 * Until then either may be shown, and they take turns as long as nothing opens: a successor that the
 * server does not know yet must not take the device offline, and one in use that has expired must not
 * keep the successor from its proof.
 */
import {
  type CertvendError,
  type Credential,
  type CredentialStore,
  isCertvendError,
} from '@certvend/client'
import { type Log, loggedFailure } from './log.ts'

export interface Succession {
  /** The credential for the next session; nothing when there is none at all. */
  current(): Credential | undefined
  /** A session has opened with what was shown last. */
  opened(): void
  /** None did. */
  failed(error: CertvendError): void
}

export interface SuccessionOptions {
  /** Whose turn it is at first. */
  readonly first: 'successor' | 'in-use'
  readonly log: Log
  /** Told each time a successor has opened a session, or has not. */
  readonly onVerdict?: (failure: CertvendError | undefined) => void
}

export const waitingSuccessor = (store: CredentialStore): Credential | undefined => {
  const pending = store.pending()
  return pending?.state === 'issued' ? pending.credential : undefined
}

export function watchSuccession(
  store: CredentialStore,
  { first, log, onVerdict = () => {} }: SuccessionOptions,
): Succession {
  let turn = first
  let shown: Credential | undefined
  const isSuccessor = (): boolean => {
    const successor = waitingSuccessor(store)
    return successor !== undefined && shown?.generation === successor.generation
  }
  return {
    current() {
      const successor = waitingSuccessor(store)
      shown = turn === 'successor' && successor ? successor : store.current()
      return shown
    },
    opened() {
      if (!isSuccessor()) return
      try {
        const { deviceSerial, thingName, certificateId, notAfter } = store.promote()
        log({ event: 'renew.proven', deviceSerial, thingName, certificateId, notAfter })
        onVerdict(undefined)
      } catch (error) {
        // It is as good as ever, and is used; the disk is asked again when the next session opens.
        if (!isCertvendError(error)) throw error
        log({ event: 'store.unwritable', ...loggedFailure(error) })
        onVerdict(error)
      }
    },
    failed(error) {
      if (isSuccessor()) {
        log({ event: 'renew.unproven', ...loggedFailure(error) })
        turn = 'in-use'
        onVerdict(error)
      } else turn = 'successor'
    },
  }
}
