/**
 * What the registry decides about certificates, carried out where devices connect.
 *
 * A device has at most two certificates in force: the one it had, and a new one until that has opened
 * its first session. The order of the steps makes each of them repeatable:
 *
 * - a certificate is *activated* after it was recorded, and then looked at once more: a revocation
 *   that came in between finds its status overwritten and has it written again;
 * - what a new certificate replaces is *withdrawn* first and noted afterwards, so that whoever is cut
 *   off in between finds the note missing and withdraws again;
 * - what an operator refuses is noted first, so that no request revives it, and withdrawn afterwards;
 *   the command is repeated if it fails, and the sweep finds what it left.
 */
import type { Issuer, Waiting } from './issuer/issuer.ts'
import type { Certificate, CertificateStatus, Device, Registry } from './registry/registry.ts'

/** What this server knows of certificates, and who makes the other side agree with it. */
export interface Books {
  readonly registry: Registry
  readonly issuer: Issuer
}

/** What a certificate's status is to be where devices connect. `device`: absent if it was removed. */
export function wantedStatus(
  certificate: Certificate,
  device: Device | undefined,
): CertificateStatus {
  if (certificate.status !== 'ACTIVE') return certificate.status
  return device && !device.disabled ? 'ACTIVE' : 'INACTIVE'
}

/**
 * Makes a certificate that was just recorded open sessions, beside at most one other: the one that has opened
 * a session, else the newest of the older ones. Repeatable.
 *
 * @param options `again`: the device asked again because it did not get the answers before. Where none has
 *   opened a session the oldest stays, which may be what it had before it asked.
 */
export async function activate(
  books: Books,
  certificate: Certificate,
  device: Device,
  options: Waiting & { readonly at: Date; readonly again?: boolean },
): Promise<void> {
  const older = await inForceBeside(books.registry, certificate)
  const kept = older.find(({ confirmedAt }) => confirmedAt) ?? older.at(options.again ? -1 : 0)
  for (const surplus of older) if (surplus !== kept) await retire(books, surplus, options)
  if (books.issuer.activate) await enter(books, books.issuer.activate, certificate, device, options)
}

/** Withdraws a certificate that gives way to another one, then notes it. Repeatable. */
export async function retire(
  { registry, issuer }: Books,
  certificate: Certificate,
  options: Waiting & { readonly at: Date },
): Promise<void> {
  await issuer.withdraw?.(certificate, 'INACTIVE', options)
  await registry.setCertificateStatus(certificate.certificateId, 'INACTIVE', options.at)
}

/**
 * Makes a recorded certificate open sessions again, or for the first time where AWS has registered it by
 * itself. Repeatable.
 *
 * @returns false if the registry does not let it in any more
 */
export async function restore(
  books: Books,
  certificate: Certificate,
  device: Device,
  options: Waiting,
): Promise<boolean> {
  const how = books.issuer.restore ?? books.issuer.activate
  return how ? enter(books, how, certificate, device, options) : true
}

async function enter(
  { registry, issuer }: Books,
  how: NonNullable<Issuer['activate']>,
  certificate: Certificate,
  device: Device,
  options: Waiting,
): Promise<boolean> {
  await how(certificate, device, options)
  const [now, owner] = await Promise.all([
    registry.findCertificate(certificate.certificateId),
    registry.find(certificate.deviceSerial),
  ])
  const wanted = wantedStatus(now ?? certificate, owner)
  if (wanted !== 'ACTIVE') await issuer.withdraw?.(certificate, wanted, options)
  return wanted === 'ACTIVE'
}

/**
 * Notes that a certificate has opened a session, and retires the ones that it replaces. Repeatable; only
 * the first time costs more than one look into the registry.
 *
 * @returns whether anything was to be done
 */
export async function confirm(
  { registry, issuer }: Books,
  certificateId: string,
  options: Waiting & { readonly at: Date },
): Promise<boolean> {
  const certificate = await registry.findCertificate(certificateId)
  if (certificate?.status !== 'ACTIVE' || certificate.confirmedAt) return false
  for (const older of await inForceBeside(registry, certificate))
    if (older.issuedAt <= certificate.issuedAt) await issuer.withdraw?.(older, 'INACTIVE', options)
  // What an older vending machine gave the device before its row was adopted.
  const device = await registry.find(certificate.deviceSerial)
  const previous = device?.previousCertificateArn?.split('/').at(-1)
  if (previous !== undefined && previous !== certificateId)
    await issuer.withdraw?.({ certificateId: previous }, 'INACTIVE', options)
  await registry.confirm(certificateId, options.at)
  return true
}

/**
 * Withdraws every certificate of a device that the registry does not let in: after a command that
 * revoked, disabled, re-armed or removed. Repeatable.
 *
 * @returns how many were withdrawn
 */
export async function withdrawRefused(
  { registry, issuer }: Books,
  deviceSerial: string,
  options: Waiting,
): Promise<number> {
  if (!issuer.withdraw) return 0
  const device = await registry.find(deviceSerial)
  let withdrawn = 0
  for (const certificate of await registry.certificates(deviceSerial)) {
    const wanted = wantedStatus(certificate, device)
    if (wanted === 'ACTIVE') continue
    await issuer.withdraw(certificate, wanted, options)
    withdrawn += 1
  }
  return withdrawn
}

/**
 * Makes the certificates of a device that was enabled again open sessions again. Repeatable.
 *
 * @returns how many there are
 */
export async function restoreDevice(
  books: Books,
  deviceSerial: string,
  options: Waiting,
): Promise<number> {
  const device = await books.registry.find(deviceSerial)
  if (!device || device.disabled) return 0
  const certificates = await books.registry.certificates(deviceSerial)
  const wanted = certificates.filter(({ status }) => status === 'ACTIVE')
  for (const certificate of wanted) await restore(books, certificate, device, options)
  return wanted.length
}

/** The other certificates of the same device that are in force, newest first. */
async function inForceBeside(registry: Registry, certificate: Certificate): Promise<Certificate[]> {
  const all = await registry.certificates(certificate.deviceSerial)
  return all.filter(
    ({ certificateId, status }) =>
      certificateId !== certificate.certificateId && status === 'ACTIVE',
  )
}
