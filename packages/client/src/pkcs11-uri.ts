/**
 * Names of private keys in PKCS#11 tokens: URIs by RFC 7512, reduced to what every program that has
 * to find the key understands (OpenSSL's engine and aws-crt: a token's label and an object's label).
 */

/** Where a key is, and where its token's PIN is. */
export interface KeyAddress {
  /** The PKCS#11 library, an absolute path. */
  readonly module: string
  /** The token's label. */
  readonly token: string
  /** The private key's label. */
  readonly object: string
  /** The file that holds the PIN, an absolute path. */
  readonly pinFile: string
}

const example =
  'pkcs11:token=TOKEN;object=KEY;type=private?module-path=/usr/lib/MODULE.so&pin-source=file:/etc/certvend/pin'

/** Error messages repeat no value: one of them may be the PIN. */
const unusable = (why: string): TypeError =>
  new TypeError(`the PKCS#11 URI ${why}; it looks like ${example}`)

function decode(name: string, text: string): string {
  try {
    const value = decodeURIComponent(text)
    if (value !== '' && !/\p{Cc}/u.test(value)) return value
  } catch {}
  throw unusable(`has no usable ${name}`)
}

/**
 * Reads the URI of a key.
 *
 * @throws TypeError when an attribute is missing, unknown or doubled, or when the URI holds a PIN.
 * @see RFC 7512 section 2.3
 */
export function parseKeyUri(uri: string): KeyAddress {
  const parts = /^pkcs11:([^?]*)\?(.*)$/s.exec(uri.trim())
  if (!parts) throw unusable('does not begin with pkcs11: or has no ?')
  const attributes = new Map<string, string>()
  for (const attribute of [...(parts[1] ?? '').split(';'), ...(parts[2] ?? '').split('&')]) {
    if (attribute === '') continue
    const [name = '', ...value] = attribute.split('=')
    if (name === 'pin-value')
      throw unusable('must not hold the PIN itself: write that to a file of mode 0600')
    if (!/^(token|object|type|module-path|pin-source)$/.test(name))
      throw unusable(
        `has an attribute that is not understood (${name.replace(/[^a-z-]/g, '').slice(0, 20)})`,
      )
    if (attributes.has(name)) throw unusable(`has two of ${name}`)
    attributes.set(name, decode(name, value.join('=')))
  }
  const wanted = (name: string): string => {
    const value = attributes.get(name)
    if (value === undefined) throw unusable(`has no ${name}`)
    return value
  }
  if ((attributes.get('type') ?? 'private') !== 'private')
    throw unusable('names something else than a private key')
  const source = wanted('pin-source')
  const module = wanted('module-path')
  if (!source.startsWith('file:/')) throw unusable('has a pin-source that is not file:/…')
  if (!module.startsWith('/')) throw unusable('has a module-path that is not absolute')
  return {
    module,
    token: wanted('token'),
    object: wanted('object'),
    pinFile: source.slice('file:'.length).replace(/^\/\/(?=\/)/, ''),
  }
}

/** As RFC 7512 allows it in any attribute. */
const encode = (text: string): string => encodeURIComponent(text).replace(/%2F/g, '/')

/** The URI of a key as OpenSSL's engine takes it: its module is named elsewhere. */
export const engineUri = ({ token, object, pinFile }: KeyAddress): string =>
  `pkcs11:token=${encode(token)};object=${encode(object)};type=private?pin-source=file:${encode(pinFile)}`

/** The one way to write an address. */
export const formatKeyUri = (address: KeyAddress): string =>
  `${engineUri(address).replace('?', `?module-path=${encode(address.module)}&`)}`
