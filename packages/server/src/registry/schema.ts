/** The embedded registry's tables, and how its rows read. Instants are milliseconds since 1970. */
import type {
  AuditEvent,
  AuditName,
  Certificate,
  CertificateStatus,
  Device,
  Fleet,
} from './registry.ts'

/** Kept in `PRAGMA user_version`; a database of another version is not touched. */
export const schemaVersion = 3

const fleets = `
CREATE TABLE fleets (
  name TEXT PRIMARY KEY,
  token_kind TEXT NOT NULL CHECK (token_kind IN ('sha256', 'scrypt')),
  token_hash TEXT NOT NULL,
  created_at INTEGER NOT NULL
) STRICT;
`

export const schema: string = `
CREATE TABLE devices (
  device_serial TEXT PRIMARY KEY,
  thing_name TEXT NOT NULL UNIQUE,
  policy_name TEXT,
  thing_type TEXT,
  attributes TEXT,
  disabled INTEGER NOT NULL DEFAULT 0,
  token_kind TEXT CHECK (token_kind IN ('sha256', 'scrypt')),
  token_hash TEXT,
  claim_number INTEGER NOT NULL DEFAULT 1,
  claim_open_until INTEGER,
  claim_public_key TEXT,
  claim_certificate_serial TEXT,
  claim_reserved_at INTEGER,
  claim_certificate_id TEXT,
  created_at INTEGER NOT NULL,
  changed_at INTEGER NOT NULL,
  fleet TEXT,
  claim_again INTEGER NOT NULL DEFAULT 0,
  claim_certificates INTEGER NOT NULL DEFAULT 0,
  claim_first_at INTEGER
) STRICT;
CREATE INDEX devices_weak ON devices (token_kind) WHERE token_kind = 'scrypt';

${fleets}
CREATE TABLE public_keys (
  public_key TEXT PRIMARY KEY,
  device_serial TEXT NOT NULL
) STRICT;

CREATE TABLE certificates (
  certificate_id TEXT PRIMARY KEY,
  device_serial TEXT NOT NULL,
  certificate_serial TEXT NOT NULL UNIQUE,
  public_key TEXT NOT NULL,
  chain TEXT NOT NULL,
  status TEXT NOT NULL CHECK (status IN ('ACTIVE', 'INACTIVE', 'REVOKED')),
  thing_name TEXT NOT NULL,
  policy_name TEXT,
  not_before INTEGER NOT NULL,
  not_after INTEGER NOT NULL,
  issued_at INTEGER NOT NULL,
  confirmed_at INTEGER,
  certificate_arn TEXT
) STRICT;
CREATE INDEX certificates_device ON certificates (device_serial, issued_at);
CREATE INDEX certificates_key ON certificates (public_key);

CREATE TABLE audit (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  at INTEGER NOT NULL,
  name TEXT NOT NULL,
  device_serial TEXT NOT NULL,
  certificate_id TEXT,
  public_key TEXT,
  remote_address TEXT,
  note TEXT
) STRICT;
CREATE INDEX audit_device ON audit (device_serial, id);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;
CREATE TRIGGER audit_is_not_removed BEFORE DELETE ON audit
  BEGIN SELECT RAISE(ABORT, 'the audit trail is append-only'); END;

PRAGMA user_version = ${schemaVersion};
`

/** What makes a database of version 1 one of version 2, and so on. */
export const upgrades: Readonly<Record<number, string>> = {
  1: `
ALTER TABLE devices ADD COLUMN fleet TEXT;
ALTER TABLE devices ADD COLUMN claim_again INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN claim_certificates INTEGER NOT NULL DEFAULT 0;
ALTER TABLE devices ADD COLUMN claim_first_at INTEGER;
${fleets}
PRAGMA user_version = 2;
`,
  2: `
ALTER TABLE certificates ADD COLUMN certificate_arn TEXT;
PRAGMA user_version = 3;
`,
}

/** A row as libsql returns it. */
export type Row = Readonly<Record<string, string | number | null>>

const text = (value: string | number | null | undefined): string => String(value)
const instant = (value: string | number | null | undefined): Date => new Date(Number(value))

/** Leaves out the fields that are null: an absent fact is absent, never null or zero. */
const present = <T extends object>(fields: T): { [K in keyof T]?: NonNullable<T[K]> } =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== null)) as never

export const toDevice = (row: Row): Device => ({
  deviceSerial: text(row.device_serial),
  thingName: text(row.thing_name),
  ...present({
    policyName: row.policy_name as string | null,
    thingType: row.thing_type as string | null,
    attributes: row.attributes === null ? null : JSON.parse(text(row.attributes)),
    fleet: row.fleet as string | null,
  }),
  disabled: row.disabled === 1,
  claim: {
    number: Number(row.claim_number),
    ...present({
      token: row.token_hash === null ? null : toToken(row),
      openUntil: row.claim_open_until === null ? null : instant(row.claim_open_until),
      publicKey: row.claim_public_key as string | null,
      certificateId: row.claim_certificate_id as string | null,
      again: row.claim_again === 0 ? null : toAgain(row),
    }),
  },
  createdAt: instant(row.created_at),
  changedAt: instant(row.changed_at),
})

const toAgain = (row: Row) => ({
  certificates: Number(row.claim_certificates),
  ...present({ since: row.claim_first_at === null ? null : instant(row.claim_first_at) }),
})

export const toFleet = (row: Row): Fleet => ({
  name: text(row.name),
  token: toToken(row),
  createdAt: instant(row.created_at),
})

const toToken = (row: Row) => ({
  kind: row.token_kind as 'sha256' | 'scrypt',
  hash: text(row.token_hash),
})

export const toCertificate = (row: Row): Certificate => ({
  certificateId: text(row.certificate_id),
  deviceSerial: text(row.device_serial),
  certificateSerial: text(row.certificate_serial),
  publicKey: text(row.public_key),
  certificateChain: JSON.parse(text(row.chain)),
  status: row.status as CertificateStatus,
  thingName: text(row.thing_name),
  notBefore: instant(row.not_before),
  notAfter: instant(row.not_after),
  issuedAt: instant(row.issued_at),
  ...present({
    policyName: row.policy_name as string | null,
    confirmedAt: row.confirmed_at === null ? null : instant(row.confirmed_at),
    certificateArn: row.certificate_arn as string | null,
  }),
})

export const toAuditEvent = (row: Row): AuditEvent => ({
  id: text(row.id),
  at: instant(row.at),
  name: row.name as AuditName,
  deviceSerial: text(row.device_serial),
  ...present({
    certificateId: row.certificate_id as string | null,
    publicKey: row.public_key as string | null,
    remoteAddress: row.remote_address as string | null,
    note: row.note as string | null,
  }),
})
