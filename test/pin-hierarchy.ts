/** The hierarchy of CAs around a pin, with the end entities that a server may show. */
import {
  type CertificateOptions,
  type Certified,
  certify,
  type KeyType,
  makeKeys,
  yesteryear,
} from './pki.ts'

export type Chain = readonly [Certified, ...Certified[]]

/** Root → inter (pinned) and sibling, with the end entities that a server may show. */
export async function makeHierarchy(type: KeyType) {
  const serverKeys = await makeKeys(type)
  const authority = async (name: string, options: CertificateOptions = {}): Promise<Certified> =>
    certify(name, { ca: true, keys: await makeKeys(type), ...options })
  const server = (issuer: Certified, options: CertificateOptions = {}): Promise<Certified> =>
    certify('localhost', { issuer, keys: serverKeys, dns: ['localhost'], ...options })
  const root = await authority('Root')
  const inter = await authority('Intermediate', { issuer: root, pathLength: 0 })
  const sibling = await authority('Sibling', { issuer: root, pathLength: 0 })
  const foreignRoot = await authority('Foreign root')
  const below = await authority('Below the intermediate', { issuer: inter })
  const old = await authority('Old', { issuer: root, notAfter: yesteryear })
  const impostor = await authority('Intermediate', { issuer: root, pathLength: 0 })
  return {
    authority,
    server,
    root,
    inter,
    sibling,
    impostor,
    below,
    old,
    interCrossSigned: await certify('Intermediate', {
      issuer: foreignRoot,
      ca: true,
      pathLength: 0,
      keys: inter.keys,
    }),
    leaf: await server(inter),
    siblingLeaf: await server(sibling),
    impostorLeaf: await server(impostor),
    rootLeaf: await server(root),
    belowLeaf: await server(below),
    oldLeaf: await server(old),
  }
}
export type Hierarchy = Awaited<ReturnType<typeof makeHierarchy>>
