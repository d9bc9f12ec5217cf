/** One attempt to enroll in an old dialect, at a vending machine that says what a test wants. */
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import {
  CertvendError,
  type Credential,
  type CredentialStore,
  createClaim,
  type EnrollOptions,
  enroll,
  openCredentialStore,
  type Send,
  type SendRequest,
  type SendResponse,
} from '@certvend/client'
import { expect, onTestFinished } from 'vitest'
import type { OldDialect } from './contracts/machines.ts'
import { unreachable } from './contracts/reference.ts'

export const now = new Date('2027-03-01T12:00:00Z')
export const clock = {
  now: () => now,
  wait: () => Promise.reject(new Error('a test of one attempt does not wait')),
}
export const deviceSerial = 'device-1'
export const token = 'burned-in/token+0123456789=='

export interface Saying {
  readonly status?: number
  /** Default `application/json`. */
  readonly type?: string
  readonly body: string | Uint8Array
  readonly headers?: Readonly<Record<string, string>>
}

export const response = ({
  status = 200,
  type = 'application/json',
  body,
  headers,
}: Saying): SendResponse => ({
  status,
  headers: { 'content-type': type, ...headers },
  body: typeof body === 'string' ? Buffer.from(body) : body,
})

/** Says it to whoever asks, and keeps what was asked. */
export function saying(what: Saying): Send & { readonly requests: readonly SendRequest[] } {
  const requests: SendRequest[] = []
  const send: Send = async (request, { beforeSend }) => {
    beforeSend?.()
    requests.push(request)
    return response(what)
  }
  return Object.assign(send, { requests })
}

/** A fresh store, where syncing costs nothing if there is such a place: these tests enroll thousands of times. */
export async function openStore(): Promise<CredentialStore> {
  const memory = '/dev/shm'
  const parent = fs.existsSync(memory) ? memory : fs.realpathSync(tmpdir())
  const directory = fs.mkdtempSync(path.join(parent, 'certvend-'))
  const store = await openCredentialStore(path.join(directory, 'state'))
  onTestFinished(() => {
    store.close()
    fs.rmSync(directory, { recursive: true, force: true })
  })
  return store
}

/** One attempt in `store`; a failure is a typed one, always. */
export async function attempt(
  store: CredentialStore,
  dialect: OldDialect,
  send: Send,
  options: EnrollOptions = {},
): Promise<Credential | CertvendError> {
  const claim = createClaim({ deviceSerial, token, dialect })
  return enroll(store, unreachable(dialect), claim, { clock, send, ...options }).catch((error) => {
    expect(error, String((error as Error).stack)).toBeInstanceOf(CertvendError)
    return error as CertvendError
  })
}

/** What a fresh device makes of it, which is refused and stored nothing. */
export async function refusalOf(dialect: OldDialect, what: Saying): Promise<CertvendError> {
  const store = await openStore()
  const error = await attempt(store, dialect, saying(what))
  expect(error).toBeInstanceOf(CertvendError)
  expect(store.current()).toBeUndefined()
  expect(store.pending()?.state).toBe('requested')
  for (const text of [(error as CertvendError).message, (error as CertvendError).hint]) {
    expect(text).not.toContain(token)
    expect(text).not.toContain('PRIVATE KEY')
    expect(text).toMatch(/^[\x20-\x7e…]*$/)
  }
  return error as CertvendError
}
