/** The embedded registry's tables. Instants are milliseconds since 1970. */

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
