/**
 * The device: firmware as its author would write it. It enrolls on first boot, asks for a successor
 * when it is told to, and promotes that one once the door has opened for it.
 */
import {
  type Claim,
  type Clock,
  type Credential,
  type CredentialStore,
  type EnsureOptions,
  enroll,
  ensureCredential,
  isCertvendError,
  openCredentialStore,
  type Remedy,
  type VendingServer,
} from '@certvend/client'
import type { Mortal } from './mortal.ts'

/** How a boot ended, as the device tells it. */
export type Ending =
  | { readonly as: 'online'; readonly certificateId: string }
  | { readonly as: 'turned away'; readonly certificateId: string }
  | {
      readonly as: 'told'
      readonly code: string
      readonly remedy: Remedy
      readonly hint: string
    }
  | { readonly as: 'killed' }

export interface Device {
  readonly directory: string
  readonly server: VendingServer
  readonly claim: Claim
  /** Asks for a successor. */
  readonly again: boolean
  readonly clock: Clock
  readonly mortal: Mortal
  /** Opens a session and closes it; whether it was let in. */
  readonly door: (credential: Credential) => Promise<boolean>
  readonly options: Pick<EnsureOptions, 'send' | 'backoff' | 'deadlineMs'>
}

export async function boot(device: Device): Promise<Exclude<Ending, { as: 'killed' }>> {
  const { directory, server, claim, again, clock, mortal } = device
  const options: EnsureOptions = {
    ...device.options,
    clock,
    random: () => 0.5,
    log: ({ event }) => {
      if (event === 'enroll.request') mortal.reach('unsent')
    },
  }
  let store: CredentialStore | undefined
  try {
    store = await openCredentialStore(directory)
    const first = await ensureCredential(store, server, claim, options)
    if (again) await seekSuccessor(store, server, claim, options)
    const credential = (await prove(store, device)) ?? first
    const open = await enter(credential, device)
    return { as: open ? 'online' : 'turned away', certificateId: credential.certificateId }
  } catch (error) {
    if (!isCertvendError(error)) throw error
    const { code, remedy, hint } = error
    return { as: 'told', code, remedy, hint }
  } finally {
    store?.close()
  }
}

/** Asks until it is there, or only a person can help. */
async function seekSuccessor(
  store: CredentialStore,
  server: VendingServer,
  claim: Claim,
  options: EnsureOptions & { clock?: Clock },
): Promise<void> {
  const { clock } = options
  while (store.pending()?.state !== 'issued')
    try {
      await enroll(store, server, claim, options)
    } catch (error) {
      if (!isCertvendError(error) || error.remedy !== 'retry') throw error
      const asked = (error.retryAt?.getTime() ?? 0) - (clock?.now().getTime() ?? 0)
      await clock?.wait(Math.max(asked, 60_000))
    }
}

/** Tries the door with a successor, if one waits: it becomes current or is dropped. */
async function prove(store: CredentialStore, device: Device): Promise<Credential | undefined> {
  const pending = store.pending()
  if (pending?.state !== 'issued') return store.current()
  if (await enter(pending.credential, device)) return store.promote()
  store.discard()
  return store.current()
}

async function enter(credential: Credential, { mortal, door }: Device): Promise<boolean> {
  mortal.reach('door')
  const open = await door(credential)
  mortal.reach('admitted')
  return open
}
