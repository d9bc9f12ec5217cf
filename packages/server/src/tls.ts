/**
 * Server-side TLS: the embedded server's own chain (root → intermediate → leaf), and the options that
 * every listener here is made with.
 *
 * The intermediate is what devices pin. It outlives many leaves, and the root can vouch for its
 * successor; the root's key is only needed for that.
 */
import { X509Certificate } from 'node:crypto'
import { hostname } from 'node:os'
import { join } from 'node:path'
import type { TlsOptions } from 'node:tls'
import { type Clock, day, hour, later } from './clock.ts'
import { formatAuthority, parseAuthority } from './issuer/local.ts'
import { type Authority, makeCa, makeServer, privateKeyPem, type ServerIdentity } from './pki.ts'
import { ensurePrivateDirectory, readIfPresent, readOrCreate, replaceFile } from './safe-file.ts'

/** How long a leaf made here lasts, in milliseconds. */
const leafMs = 90 * day

/** TLS options for a server: its identity, TLS 1.2 or newer, and ten seconds for a handshake. */
export const serverTlsOptions = (identity: { cert: string; key: string }): TlsOptions => ({
  ...identity,
  minVersion: 'TLSv1.2',
  handshakeTimeout: 10_000,
})

export const identityOptions = (identity: ServerIdentity): { cert: string; key: string } => ({
  cert: identity.certificateChain,
  key: privateKeyPem(identity.privateKey),
})

/** The names that a leaf always carries, besides those that are asked for. */
const localNames = (): readonly string[] => [
  ...new Set(['localhost', '127.0.0.1', '::1', hostname()]),
]

/** The embedded chain, and where its public parts lie. */
export interface ServerChain {
  readonly root: Authority
  /** What devices pin. */
  readonly intermediate: Authority
  readonly cert: string
  readonly key: string
  /** File with the certificate to pin. */
  readonly pinPath: string
}

/**
 * The server chain kept in `directory`, made if it is not there: `root.key.pem`,
 * `intermediate.key.pem` and `server.key.pem` (0600; key and certificates in one file each), and
 * `root.pem` and `pin.pem` to give away.
 *
 * The leaf is made anew when less than a third of its life is left, or when `names` asks for a name
 * that it does not carry.
 */
export async function openServerChain(
  directory: string,
  names: readonly string[],
  clock: Clock,
): Promise<ServerChain> {
  await ensurePrivateDirectory(directory)
  const from = later(clock.now(), -hour)
  const keep = async (name: string, make: () => Promise<Authority>) => {
    const path = join(directory, `${name}.key.pem`)
    return parseAuthority(await readOrCreate(path, async () => formatAuthority(await make())))
  }
  const root = await keep('root', () =>
    makeCa({
      commonName: 'Certvend server root',
      notBefore: from,
      notAfter: later(from, 25 * 365 * day),
    }),
  )
  const intermediate = await keep('intermediate', () =>
    makeCa({
      commonName: 'Certvend server intermediate',
      issuer: root,
      pathLength: 0,
      notBefore: from,
      notAfter: later(from, 10 * 365 * day),
    }),
  )
  const pinPath = join(directory, 'pin.pem')
  await replaceFile(join(directory, 'root.pem'), root.certificate, 0o644)
  await replaceFile(pinPath, intermediate.certificate, 0o644)

  const wanted = [...new Set([...localNames(), ...names])]
  const leafPath = join(directory, 'server.key.pem')
  const kept = await readIfPresent(leafPath)
  if (kept && isFit(kept, intermediate, wanted, clock.now()))
    return { root, intermediate, ...splitIdentity(kept), pinPath }
  const leaf = identityOptions(
    await makeServer({
      issuer: intermediate,
      names: wanted,
      notBefore: from,
      notAfter: later(from, leafMs),
    }),
  )
  await replaceFile(leafPath, leaf.key + leaf.cert, 0o600)
  return { root, intermediate, ...leaf, pinPath }
}

function splitIdentity(text: string): { cert: string; key: string } {
  const start = text.indexOf('-----BEGIN CERTIFICATE-----')
  return { key: text.slice(0, start), cert: text.slice(start) }
}

function isFit(text: string, issuer: Authority, names: readonly string[], now: Date): boolean {
  try {
    const leaf = new X509Certificate(splitIdentity(text).cert)
    const from = Date.parse(leaf.validFrom)
    const until = Date.parse(leaf.validTo)
    const isFresh = until - now.getTime() >= (until - from) / 3 && from <= now.getTime()
    return (
      isFresh &&
      leaf.checkIssued(new X509Certificate(issuer.certificate)) &&
      names.every((name) => (leaf.checkHost(name) ?? leaf.checkIP(name)) !== undefined)
    )
  } catch {
    return false // a damaged leaf is replaced; it is made here and nobody pins it
  }
}
