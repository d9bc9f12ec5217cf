/** What is wrong with a key in a PKCS#11 token: one wording, whichever program found out. */
import { CertvendError } from './errors.ts'
import type { KeyAddress } from './pkcs11-uri.ts'

export type KeyTrouble =
  | 'wrong-pin'
  | 'locked'
  | 'no-module'
  | 'no-token'
  | 'no-key'
  | 'other-key'
  | 'no-engine'
  | 'no-openssl'

const wordings: Readonly<Record<KeyTrouble, (at: KeyAddress) => [message: string, hint: string]>> =
  {
    'wrong-pin': ({ token, pinFile }) => [
      `the token "${token}" refused the PIN in ${pinFile}`,
      `write the right PIN to ${pinFile}; a token locks after a few wrong ones`,
    ],
    locked: ({ token }) => [
      `the token "${token}" is locked after too many wrong PINs`,
      "unlock it with the security officer's PIN",
    ],
    'no-module': ({ module }) => [
      `the PKCS#11 module ${module} cannot be loaded`,
      `look whether ${module} is there and whether it finds its own configuration`,
    ],
    'no-token': ({ module, token }) => [
      `there is no token "${token}", or there are several`,
      `pkcs11-tool --module ${module} --list-token-slots`,
    ],
    'no-key': ({ module, token, object }) => [
      `there is no private key "${object}" in the token "${token}", or there are several`,
      `pkcs11-tool --module ${module} --token-label '${token}' --login --list-objects`,
    ],
    'other-key': ({ token, object }) => [
      `"${object}" in the token "${token}" is another key than the one that was enrolled`,
      'name the key that is there now as a new key, and enroll with it',
    ],
    'no-engine': () => [
      "openssl has no engine 'pkcs11'",
      'on Debian: apt install libengine-pkcs11-openssl',
    ],
    'no-openssl': () => [
      'openssl could not be run, or did not answer',
      'on Debian: apt install openssl',
    ],
  }

export function keyTrouble(
  trouble: KeyTrouble,
  address: KeyAddress,
  options: { cause?: unknown } = {},
): CertvendError {
  const [message, hint] = wordings[trouble](address)
  return new CertvendError('ERR_KEY_UNAVAILABLE', message, { ...options, hint })
}
