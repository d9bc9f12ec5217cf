/** `certvend-server ca …`: the CA that signs device certificates, and AWS IoT's knowledge of it. */
import { access } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Command } from 'commander'
import { day, later, second } from '../clock.ts'
import { dataDirectory } from '../data-directory.ts'
import { failure } from '../failure.ts'
import { readNamed } from '../named-file.ts'
import { ensurePrivateDirectory, readOrCreate, replaceFile } from '../safe-file.ts'
import { print, say, type Terminal } from '../terminal.ts'
import { addBooksOptions, type BooksOptions, openBooks } from './issuer.ts'

interface CaOptions extends BooksOptions {
  readonly dataDir?: string
  readonly caKey?: string
  readonly caCertificate?: string
  readonly json?: true
}

interface RegisterOptions extends CaOptions {
  readonly sniOnly?: true
  readonly autoRegistration?: true
}

const examples = `
A CA on this server, in a file that only this user can read:

  $ certvend-server ca create

A CA whose key is made and kept in KMS and never leaves it (ECC_NIST_P256, SIGN_VERIFY):

  $ certvend-server ca create --ca-key arn:aws:kms:eu-west-1:123456789012:key/… \\
      --ca-certificate device-ca.pem

Tell AWS IoT of it; with --auto-registration devices register themselves when they first connect:

  $ certvend-server ca register --ca-key arn:aws:kms:… --ca-certificate device-ca.pem
  $ certvend-server ca register --sni-only --auto-registration

Both may be repeated: a CA is never replaced, and what is registered is brought to what is asked for.
`

const validityMs = 25 * 365 * day
const commonName = 'Certvend device CA'

export function addCaCommands(program: Command, terminal: Terminal): void {
  const group = program
    .command('ca')
    .description('make the CA of device certificates, register it with AWS IoT')
    .addHelpText('after', examples)

  const command = (name: string, description: string): Command =>
    group
      .command(name)
      .description(description)
      .option('--data-dir <directory>', 'where its file is by default (./certvend-data)')
      .option('--ca-key <file or ARN>', 'a file, a secret, or a KMS key, by ARN')
      .option('--ca-certificate <file>', 'with a KMS key: the CA certificate, PEM')
      .option('--json', 'print JSON')

  command('create', 'make a CA where there is none').action((options: CaOptions) =>
    create(options, terminal),
  )

  addBooksOptions(command('register', 'register the CA with AWS IoT'))
    .option('--sni-only', 'without proof of its key; the same CA in several accounts (SNI_ONLY)')
    .option('--auto-registration', 'devices register themselves (just-in-time registration)')
    .action((options: RegisterOptions) => register(options, terminal))
}

const keyPlace = (options: CaOptions, terminal: Terminal): string =>
  options.caKey ?? join(dataDirectory(options.dataDir, terminal.env), 'device-ca.key.pem')

async function create(options: CaOptions, terminal: Terminal): Promise<void> {
  const { certificateId, formatAuthority, makeDeviceCa, parseAuthority } = await import(
    '../issuer/local.ts'
  )
  const { isKmsArn, isSecretArn, openKmsKey, writeNewSecret } = await import('../issuer/ca-key.ts')
  const place = keyPlace(options, terminal)
  const { clock } = terminal
  let certificate: string
  if (isKmsArn(place)) {
    const path = options.caCertificate
    if (path === undefined)
      throw failure(
        2,
        'a CA with a KMS key has its certificate in a file',
        'name it: --ca-certificate FILE',
      )
    await refuseExisting(path)
    const { makeCaCertificate } = await import('../pki.ts')
    const dates = { notBefore: later(clock.now(), -day), notAfter: later(clock.now(), validityMs) }
    const request = { commonName, pathLength: 0, ...dates }
    certificate = await makeCaCertificate(request, await openKmsKey(place))
    await replaceFile(path, certificate, 0o644)
  } else if (isSecretArn(place)) {
    const ca = await makeDeviceCa(clock)
    await writeNewSecret(place, formatAuthority(ca))
    certificate = ca.certificate
  } else {
    await refuseExisting(place)
    await ensurePrivateDirectory(dirname(place))
    const text = await readOrCreate(place, async () => formatAuthority(await makeDeviceCa(clock)))
    certificate = parseAuthority(text).certificate
  }
  const caCertificateId = certificateId(certificate)
  if (options.json) print(terminal, { caCertificateId, certificate })
  else terminal.out(certificate)
  say(terminal, `made the CA ${caCertificateId}`)
}

async function refuseExisting(path: string): Promise<void> {
  const isThere = await access(path).then(
    () => true,
    () => false,
  )
  if (isThere)
    throw failure(
      3,
      `${path} is there already`,
      'a CA is not replaced: devices hold its certificates',
    )
}

async function register(options: RegisterOptions, terminal: Terminal): Promise<void> {
  const { openCa } = await import('../issuer/ca-key.ts')
  const { registerCa } = await import('../issuer/iot-ca.ts')
  const { caCertificate } = options
  const read = caCertificate === undefined ? undefined : () => readNamed(caCertificate)
  const ca = await openCa(keyPlace(options, terminal), read)
  const { iot, close } = await openBooks(options, terminal)
  const signal = AbortSignal.any([terminal.signal, AbortSignal.timeout(60 * second)])
  try {
    const registered = await registerCa(iot, ca, {
      mode: options.sniOnly ? 'SNI_ONLY' : 'DEFAULT',
      autoRegistration: options.autoRegistration === true,
      clock: terminal.clock,
      signal,
    }).catch((error: Error) => {
      throw failure(1, error.message, 'see that the role may register CAs; it is safe to repeat')
    })
    const { caCertificateId, outcome, autoRegistration } = registered
    if (options.json) print(terminal, registered)
    else terminal.out(`${caCertificateId}\n`)
    const how = autoRegistration ? 'devices register themselves' : 'devices are registered here'
    say(terminal, `the CA is ${outcome === 'unchanged' ? 'registered as it was' : outcome}; ${how}`)
  } finally {
    close()
  }
}
