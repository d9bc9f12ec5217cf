/**
 * The registry border: which devices there are, what each may claim, and what each was given.
 *
 * **What an implementation MUST do.** The life of a claim is four writes, each of them conditional
 * and atomic, in this order:
 *
 * 1. {@link Registry.reserve} binds one public key to an open claim, and writes down the certificate
 *    serial and the instant that the issuer will sign. Of any number of keys that race, exactly one
 *    is bound.
 * 2. The issuer signs. Nothing is written; a crash here leaves a reservation.
 * 3. {@link Registry.record} stores the certificate for that reservation, once. Of any number of
 *    signatures over the same reservation, exactly one is stored, and only that one is handed out.
 * 4. {@link Registry.confirm} notes that the certificate has opened a session, and retires the ones
 *    that the same device held before.
 *
 * A crash between any two of them is repaired by the next request with the same key. No method reads
 * a clock: `at` is the caller's present. A method that changes something MUST append to the audit
 * trail in the same atomic write; audit events MUST NOT be changed or removed by anything here.
 *
 * An implementation MAY be shared by several processes and MUST then still hold all of the above: an
 * in-process lock is not enough. SQL does each write in one transaction; DynamoDB needs none, see
 * `dynamodb/changes.ts`.
 *
 * Methods MUST be safe to call concurrently. They reject with {@link isRegistryBusy} when trying
 * again shortly may help, and with any other error when it will not.
 */
import type { StoredToken } from '../tokens.ts'

/** Who may claim a certificate now. A new claim (add, re-arm) is a new number. */
export interface Claim {
  readonly number: number
  /** Absent: no token matches. */
  readonly token?: StoredToken
  /** After this instant no key can be bound any more; a bound one stays bound. Absent: no limit. */
  readonly openUntil?: Date
  /** SHA-256 of the SubjectPublicKeyInfo (DER) that is bound, hex. Absent: the claim is open. */
  readonly publicKey?: string
  /**
   * Present from {@link Registry.record} on: the claim is spent. {@link vendedElsewhere} for a device
   * that was imported as spent, without the name of its certificate.
   */
  readonly certificateId?: string
  /** Present if the bound key may give way to another; see {@link ReserveRequest.again}. */
  readonly again?: {
    /** Recorded under this claim so far. */
    readonly certificates: number
    /** When the first of them was recorded. */
    readonly since?: Date
  }
}

/** What a claim was spent on where nobody wrote down the certificate's id. */
export const vendedElsewhere = 'elsewhere'

/** What the operator says about a device. */
export interface DeviceDescription {
  readonly deviceSerial: string
  /** Unique among devices: two devices of one thing name would take each other's sessions over. */
  readonly thingName: string
  readonly policyName?: string
  readonly thingType?: string
  readonly attributes?: Readonly<Record<string, string>>
  /** The fleet whose token may claim this device, besides the device's own. */
  readonly fleet?: string
}

/** A device as it is imported. */
export interface NewDevice extends DeviceDescription {
  readonly token?: StoredToken
  readonly disabled?: boolean
  /**
   * The certificateId that the device was vended before it came here, or {@link vendedElsewhere}: its
   * claim is spent until it is re-armed. Absent: the claim is open.
   */
  readonly spentOn?: string
}

export type AddOutcome = 'added' | 'serial-taken' | 'thing-name-taken'

/** Devices that share one token, in the firmware of all of them; see `legacy/gateway-2021.ts`. */
export interface Fleet {
  readonly name: string
  readonly token: StoredToken
  readonly createdAt: Date
}

/** A row of the registry. */
export interface Device extends DeviceDescription {
  readonly disabled: boolean
  readonly claim: Claim
  /** Absent: its row was there before this program. */
  readonly createdAt?: Date
  readonly changedAt?: Date
  /**
   * ARN of the certificate that the vending machine before this one gave to the device, in a table
   * that was adopted. It is not among {@link Registry.certificates}.
   */
  readonly previousCertificateArn?: string
}

/** Words of AWS IoT. Only ACTIVE opens sessions; REVOKED is for ever. */
export type CertificateStatus = 'ACTIVE' | 'INACTIVE' | 'REVOKED'

/** What an issuer made; see {@link Registry.record}. */
export interface Issued {
  /** SHA-256 of the end entity's DER, 64 lower-case hex digits. */
  readonly certificateId: string
  /** PEM, end entity first. */
  readonly certificateChain: readonly string[]
  readonly notBefore: Date
  readonly notAfter: Date
  /** Where AWS IoT holds it. */
  readonly certificateArn?: string
}

/** A certificate that was issued and recorded. */
export interface Certificate extends Issued {
  readonly deviceSerial: string
  readonly certificateSerial: string
  readonly publicKey: string
  readonly status: CertificateStatus
  /** What it was issued with; the device's row may have changed since. */
  readonly thingName: string
  readonly policyName?: string
  readonly issuedAt: Date
  /** When it opened its first session. */
  readonly confirmedAt?: Date
}

export type AuditName =
  | 'device-added'
  | 'device-disabled'
  | 'device-enabled'
  | 'device-rearmed'
  | 'device-removed'
  | 'claim-reserved'
  | 'certificate-issued'
  | 'certificate-confirmed'
  | 'certificate-status'
  /** Alarm: the right token with another key than the one that spent the claim. Possible theft. */
  | 'claim-conflict'
  /** Alarm: the right token with a key that belongs to another device. Possible clone. */
  | 'key-conflict'
  /** Alarm: our CA signed a certificate that was never recorded here, and it wanted in. */
  | 'certificate-unknown'
  | 'fleet-added'
  | 'fleet-removed'

/** A line of the audit trail. */
export interface AuditEvent {
  /** The cursor for {@link Registry.events}; says nothing else. */
  readonly id: string
  readonly at: Date
  readonly name: AuditName
  /**
   * Of a fleet's event `fleet/` and its name, of an unknown certificate's `ca/` and the id of the CA that
   * signed it; neither can be a device serial.
   */
  readonly deviceSerial: string
  readonly certificateId?: string
  readonly publicKey?: string
  readonly remoteAddress?: string
  /** Words of ours, such as `revoked` or `token kept`. */
  readonly note?: string
}

/** A key bound to a claim, and what is to be signed for it. */
export interface Reservation {
  readonly deviceSerial: string
  readonly claimNumber: number
  readonly publicKey: string
  /** Hex, positive. */
  readonly certificateSerial: string
  /** What the validity of the certificate counts from. */
  readonly reservedAt: Date
}

/** Why a key was not bound, or a certificate not stored. */
export type ClaimRefusal =
  /** The claim that authenticated the caller is no more: the device was removed or re-armed. */
  | 'claim-gone'
  | 'device-disabled'
  /** Bound to this very key, and its certificate is REVOKED. */
  | 'certificate-revoked'
  /** Bound to this very key, and its certificate expired or became INACTIVE. */
  | 'certificate-finished'
  /** Bound to another key: an alarm, written to the audit trail. */
  | 'claim-conflict'
  /** The key belongs to another device: an alarm, written to the audit trail. */
  | 'key-conflict'
  /** The claim is open, but not to this key: a certificate for it was REVOKED. */
  | 'key-revoked'
  /** The claim was open for a limited time, which is over. */
  | 'claim-expired'
  /** Asked again too late or too often; see {@link ReserveRequest.again}. Not an alarm. */
  | 'claim-exhausted'
  /** Another key took this one's place before its certificate was recorded. Not an alarm. */
  | 'claim-replaced'
  /** Imported as spent, and not re-armed since; see {@link NewDevice.spentOn}. */
  | 'claim-vended-elsewhere'
  /** To be renewed, and somebody else may still use the claim; see {@link ReserveRequest.renews}. Not an alarm. */
  | 'claim-open'

export type ClaimOutcome =
  | { readonly outcome: 'reserved'; readonly device: Device; readonly reservation: Reservation }
  | { readonly outcome: 'issued'; readonly device: Device; readonly certificate: Certificate }
  | { readonly outcome: 'refused'; readonly reason: ClaimRefusal }

export interface ReserveRequest {
  readonly deviceSerial: string
  /** The claim whose token authenticated the caller. */
  readonly claimNumber: number
  readonly publicKey: string
  /** Used if this call binds the key, or replaces a reservation older than {@link reservationMs}. */
  readonly certificateSerial: string
  readonly at: Date
  readonly remoteAddress?: string
  /**
   * For protocols in which the key is made here and sent once: whoever did not get it can only ask
   * for another. A claim that such a request bound lets a later one bind another key in its place,
   * until it has these many certificates or its first one is this old. The certificates made before
   * stay as they are: {@link Registry.confirm} retires them. A claim bound without it never gives way.
   */
  readonly again?: {
    /** At least 1; 1 means that only a key without a certificate gives way. */
    readonly certificates: number
    readonly windowMs: number
  }
  /**
   * For a caller that has shown a certificate of this device in force, instead of the claim's token:
   * where the claim is spent, opens the next one (its number is one more, the token stays) and binds
   * the key to it, in the one write. A claim that is open, or whose key has yet to get its
   * certificate, is left alone; a reservation older than {@link reservationMs} gives way.
   */
  readonly renews?: boolean
}

/**
 * How long a reservation may be signed, in milliseconds: one hour. An older one without a certificate
 * is renewed with a new serial and instant, so that a device which comes back after a month gets a
 * certificate of full length, and a signature that took longer than this can no longer be recorded.
 */
export const reservationMs: number = 60 * 60 * 1000

/** The border to the database of devices, claims and certificates. */
export interface Registry {
  /** Adds a device with an open claim. */
  add(device: DeviceDescription, token: StoredToken | undefined, at: Date): Promise<AddOutcome>
  /**
   * Adds many devices, each as {@link Registry.add} would; of two alike, the first. Each is added
   * whole or not at all.
   *
   * @returns what became of each, in their order
   */
  addAll(devices: readonly NewDevice[], at: Date): Promise<readonly AddOutcome[]>
  find(deviceSerial: string): Promise<Device | undefined>
  /**
   * At most `limit` devices after the serial `after`, in an order that is always the same: of their
   * serials in SQL, the table's own in DynamoDB. Fewer than `limit` only at the end.
   */
  list(page: { after?: string; limit: number }): Promise<readonly Device[]>
  /** Whether any device's token is weak. */
  hasWeakTokens(): Promise<boolean>

  /** Step 1. Repeating it with the same key answers what became of the first. */
  reserve(request: ReserveRequest): Promise<ClaimOutcome>
  /**
   * Step 3. Answers `issued` with the certificate that is stored: this one or the one that was faster.
   * Answers `reserved` if the reservation was renewed meanwhile: sign that one.
   */
  record(reservation: Reservation, issued: Issued, at: Date): Promise<ClaimOutcome>
  /** Step 4. Older ACTIVE certificates of the device become INACTIVE. Repeating it changes nothing. */
  confirm(certificateId: string, at: Date): Promise<void>

  /** Any certificate ever recorded. */
  findCertificate(certificateId: string): Promise<Certificate | undefined>
  /** The device's certificates, newest first; also of a device that was removed. */
  certificates(deviceSerial: string): Promise<readonly Certificate[]>
  /** REVOKED does not change any more: false if it would have, or if there is no such certificate. */
  setCertificateStatus(certificateId: string, status: CertificateStatus, at: Date): Promise<boolean>

  /** @returns false if there is no such device */
  setDisabled(deviceSerial: string, disabled: boolean, at: Date): Promise<boolean>
  /**
   * Opens a new claim: any one key may be bound to it until `openUntil`. Certificates stay as they
   * are, or become REVOKED at once.
   *
   * @returns false if there is no such device
   */
  rearm(
    deviceSerial: string,
    how: {
      /** The new token, or `keep` for the one that is there. */
      readonly token: StoredToken | 'keep'
      readonly openUntil: Date
      readonly revoke: boolean
    },
    at: Date,
  ): Promise<boolean>
  /**
   * Forgets the device and revokes its certificates. Its keys stay bound to its serial, its
   * certificates and audit events stay readable.
   *
   * @returns false if there is no such device
   */
  remove(deviceSerial: string, at: Date): Promise<boolean>

  /** @returns false if there is a fleet of this name */
  addFleet(name: string, token: StoredToken, at: Date): Promise<boolean>
  findFleet(name: string): Promise<Fleet | undefined>
  /** In the order of their names. */
  fleets(): Promise<readonly Fleet[]>
  /**
   * Its token is worth nothing from now on; its devices stay as they are.
   *
   * @returns false if there is no such fleet
   */
  removeFleet(name: string, at: Date): Promise<boolean>

  /**
   * Audit events in the order they happened (as far as the clocks of several servers agree), at most
   * `limit`, after the event `after`.
   */
  events(page: {
    deviceSerial?: string
    after?: string
    limit: number
  }): Promise<readonly AuditEvent[]>

  /** The serial that a public key (its SHA-256, hex) is bound to; also of a removed device. */
  keyHolder(publicKey: string): Promise<string | undefined>
  /** Appends `certificate-unknown` to the audit trail, once per certificate. @returns whether it was new */
  noteUnknown(certificateId: string, caCertificateId: string, at: Date): Promise<boolean>

  /** Rejects if the registry cannot be read. */
  check(): Promise<void>
  close(): Promise<void>
}

const busy = 'ERR_REGISTRY_BUSY'

/** The error for "not now, shortly perhaps". */
export const registryBusy = (cause: unknown): Error =>
  Object.assign(new Error('the registry is busy', { cause }), { code: busy })

/** Whether it is "not now": trying again shortly may help. */
export const isRegistryBusy = (error: unknown): boolean =>
  error instanceof Error && (error as NodeJS.ErrnoException).code === busy

/** Where a device stands, from the facts of its row. */
export type DeviceState = 'disabled' | 'waiting' | 'expired' | 'reserved' | 'enrolled'

/** @param now for a claim whose time has gone by */
export function deviceState(device: Device, now: Date): DeviceState {
  const { claim } = device
  if (device.disabled) return 'disabled'
  if (claim.certificateId) return 'enrolled'
  if (claim.publicKey) return 'reserved'
  return claim.openUntil && claim.openUntil <= now ? 'expired' : 'waiting'
}

/** Whether a certificate may open a session now (the device itself may still be disabled). */
export const isInForce = (certificate: Certificate, now: Date): boolean =>
  certificate.status === 'ACTIVE' && certificate.notAfter > now
