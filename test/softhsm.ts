/** A PKCS#11 token in software (SoftHSM 2), in a directory of its own; absent where not installed. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

const module = ['/usr/lib/softhsm/libsofthsm2.so', '/usr/local/lib/softhsm/libsofthsm2.so'].find(
  (file) => fs.existsSync(file),
)

const installed = (program: string): boolean => spawnSync(program, []).error === undefined
const hasEngine = (): boolean =>
  spawnSync('openssl', ['engine', 'pkcs11'], { encoding: 'utf8' }).stdout?.includes('pkcs11')

/** Debian packages that tests with a token need and that are not here. */
export const tokenPackagesMissing: readonly string[] = [
  ...(installed('openssl') ? [] : ['openssl']),
  ...(installed('openssl') && hasEngine() ? [] : ['libengine-pkcs11-openssl']),
  ...(installed('softhsm2-util') && module ? [] : ['softhsm2']),
  ...(installed('pkcs11-tool') ? [] : ['opensc']),
]

export type TokenKeyType = 'EC:prime256v1' | 'EC:secp384r1' | 'rsa:2048'

export interface Token {
  readonly module: string
  readonly label: string
  /** For the environment: where SoftHSM finds its own configuration. */
  readonly configuration: string
  /** Makes a key pair in the token, as the operator would. */
  makeKey(label: string, type: TokenKeyType): void
  removeKey(label: string): void
  /** The URI of a key, with what tests want to be wrong about it. */
  uri(object: string, wrong?: { module?: string; token?: string; pinFile?: string }): string
  /** Holds the PIN, 0600. */
  readonly pinFile: string
}

/** Makes a token with `pin` in `directory`. */
export function makeToken(directory: string, pin: string, label = 'certvend test'): Token {
  const configuration = path.join(directory, 'softhsm2.conf')
  const tokens = path.join(directory, 'tokens')
  const pinFile = path.join(directory, 'pin')
  fs.mkdirSync(tokens)
  fs.writeFileSync(configuration, `directories.tokendir = ${tokens}\nlog.level = ERROR\n`)
  fs.writeFileSync(pinFile, pin, { mode: 0o600 })
  const run = (program: string, ...args: string[]): void => {
    const env = { ...process.env, SOFTHSM2_CONF: configuration }
    execFileSync(program, args, { env, stdio: 'pipe' })
  }
  const tool = (...args: string[]): void =>
    run(
      'pkcs11-tool',
      '--module',
      module!,
      '--token-label',
      label,
      '--login',
      '--pin',
      pin,
      ...args,
    )
  run('softhsm2-util', '--init-token', '--free', '--label', label, '--so-pin', pin, '--pin', pin)
  let made = 0
  return {
    module: module!,
    label,
    configuration,
    pinFile,
    makeKey: (name, type) =>
      tool('--keypairgen', '--key-type', type, '--label', name, '--id', `0${++made}`),
    removeKey(name) {
      tool('--delete-object', '--type', 'privkey', '--label', name)
      tool('--delete-object', '--type', 'pubkey', '--label', name)
    },
    uri: (object, wrong = {}) =>
      `pkcs11:token=${encodeURIComponent(wrong.token ?? label)};object=${encodeURIComponent(object)};type=private` +
      `?module-path=${wrong.module ?? module}&pin-source=file:${wrong.pinFile ?? pinFile}`,
  }
}
