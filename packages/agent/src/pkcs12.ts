/** PKCS#12 (RFC 7292), by openssl: key and password go by pipe and file, never by argv. */
import { spawnSync } from 'node:child_process'
import { configurationError } from './failure.ts'
import type { ExportedFile } from './formats.ts'
import { readPlainFile } from './plain-file.ts'

/** Longest time openssl may take, in milliseconds. */
const limitMs = 20_000

/**
 * One file, `credential.p12`, of a key and certificates in PEM. Its friendly name is `alias`.
 *
 * @throws a configuration error when openssl is missing, or the password file is or holds none
 */
export function pkcs12File(
  pem: string,
  { alias, passwordFile }: { readonly alias: string; readonly passwordFile: string | undefined },
): ExportedFile {
  if (passwordFile === undefined)
    throw configurationError(
      'the format pkcs12 needs a password',
      'put it in a file of mode 0600: --password-file FILE, password_file = "FILE"',
    )
  const from = { value: passwordFile, from: 'pkcs12' }
  const { text, found } = readPlainFile('the password file', from)
  if ((found.mode & 0o077) !== 0)
    throw configurationError(
      `the password file ${passwordFile} is open to other users`,
      `take that away: chmod 600 ${passwordFile}`,
    )
  if (text.split('\n', 1)[0] === '')
    throw configurationError(`the password file ${passwordFile} is empty`)
  const argv = ['pkcs12', '-export', '-name', alias, '-passout', `file:${passwordFile}`]
  const made = spawnSync('openssl', argv, { input: pem, timeout: limitMs, maxBuffer: 1024 * 1024 })
  if (made.error && (made.error as NodeJS.ErrnoException).code === 'ENOENT')
    throw configurationError('openssl is not installed, which makes PKCS#12', 'apt install openssl')
  if (made.status !== 0 || made.stdout.length === 0)
    throw configurationError('openssl could not make the PKCS#12 file')
  return { name: 'credential.p12', data: made.stdout, secret: true }
}
