/**
 * The credential in use, read by root from a state directory whose owner is not trusted.
 *
 * A gateway's network daemon owns its store; should it fall, whoever holds it may lay links, FIFOs and
 * huge files there for a program with more rights to follow. So every step is opened by descriptor
 * without following a link, belongs to the directory's owner, has one name only and a sensible size,
 * and what it says is judged anew: a name with a line break in it would be a line in somebody's
 * configuration. Linux only: it walks by /proc/self/fd.
 */
import fs from 'node:fs'
import { judgeChain, readCertificates } from './certificate.ts'
import type { Credential } from './credential.ts'
import { judgeDirectory } from './directory.ts'
import { CertvendError } from './errors.ts'
import { fileNames, readGeneration } from './generation.ts'
import { isDeviceSerial, isEndpointAddress, isThingName } from './wire.ts'

const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK } = fs.constants

/** Tries, as the store's owner may move on to a successor between two steps. */
const patience = 5

/**
 * Reads the credential in use; nothing when there is none.
 *
 * @param directory the state directory; it and the way to it are judged as by `openCredentialStore`,
 *   but its owner may be another user.
 * @throws {CertvendError} `ERR_STORE_UNSAFE` for anything that a store of ours does not hold;
 *   `ERR_STORE_CORRUPT` when it is not whole; `ERR_STORE_UNREADABLE`; `ERR_CERTIFICATE_MISMATCH` or
 *   `ERR_CLOCK` when the certificate is not valid at `now`.
 */
export function readUntrustedStore(directory: string, now: Date): Credential | undefined {
  const { path: root, exists } = judgeDirectory(directory)
  if (!exists) return undefined
  let generation = ''
  for (let tries = 0; tries < patience; tries++) {
    const named = inUse(root)
    if (named === undefined) return undefined
    generation = named
    const credential = readNamed(root, named)
    if (credential) return judge(credential, now)
  }
  throw new CertvendError(
    'ERR_STORE_CORRUPT',
    `${root}/${generation}, which is in use, is no whole credential`,
  )
}

function readNamed(root: string, generation: string): Credential | undefined {
  const opened: number[] = []
  const open = (target: string): string => {
    const descriptor = reading(target, () =>
      fs.openSync(target, O_RDONLY | O_DIRECTORY | O_NOFOLLOW),
    )
    opened.push(descriptor)
    return `/proc/self/fd/${descriptor}`
  }
  try {
    const home = open(root)
    const { uid } = fs.fstatSync(opened[0] as number)
    const [parent = '', name = ''] = generation.split('/')
    let at = home
    for (const step of [parent, name]) {
      if (!fs.existsSync(`${at}/${step}`)) return undefined
      at = open(`${at}/${step}`)
      if (fs.fstatSync(opened.at(-1) as number).uid !== uid)
        refuse(`${root}/${generation}`, "belongs to another user than the store's")
    }
    for (const file of Object.values(fileNames)) judgeFile(`${at}/${file}`, { uid, root })
    if (fs.existsSync(`${at}/${fileNames.keyUri}`)) inToken(root)
    const read = readGeneration(at, Number(name))
    return read.state === 'issued' ? read.credential : undefined
  } finally {
    for (const descriptor of opened) fs.closeSync(descriptor)
  }
}

/** The generation that `current` names, relative to `root`. */
function inUse(root: string): string | undefined {
  const link = `${root}/current`
  const found = reading(link, () => fs.lstatSync(link, { throwIfNoEntry: false }))
  if (!found) return undefined
  const target = found.isSymbolicLink() ? reading(link, () => fs.readlinkSync(link)) : ''
  return /^generations\/\d{10}$/.test(target) ? target : refuse(link, 'names no generation')
}

/** A plain file with one name, its owner's: a second name may be that of a file of somebody else's. */
function judgeFile(target: string, { uid, root }: { uid: number; root: string }): void {
  const named = `${root}/current/${target.split('/').at(-1)}`
  const found = reading(named, () => fs.lstatSync(target, { throwIfNoEntry: false }))
  if (!found) return
  if (!found.isFile()) refuse(named, 'is not a plain file')
  if (found.uid !== uid) refuse(named, "belongs to another user than the store's")
  if (found.nlink !== 1) refuse(named, 'has more than one name')
  // What cannot be opened by its owner's rules would hang or fail later, without a name.
  fs.closeSync(reading(named, () => fs.openSync(target, O_RDONLY | O_NOFOLLOW | O_NONBLOCK)))
}

function inToken(root: string): never {
  throw new CertvendError('ERR_STORE_UNREADABLE', `the key of ${root} lies in a token`, {
    hint: 'it never leaves the token: let the other program use the token itself (RFC 7512)',
  })
}

function judge(credential: Credential, now: Date): Credential {
  const { thingName, deviceSerial, endpoint } = credential
  const odd = (what: string): never =>
    refuse('credential.json', `holds ${what} that no enrollment would have accepted`)
  if (!isThingName(thingName)) odd('a thing name')
  if (!isDeviceSerial(deviceSerial) && !isThingName(deviceSerial)) odd('a device serial')
  if (!isEndpointAddress(endpoint)) odd('an endpoint')
  const chain = readCertificates(credential.certificateChain)
  judgeChain(chain, { publicKey: credential.privateKey.publicKey, now })
  return {
    ...credential,
    certificateChain: chain.map(String).join(''),
    endpoint: {
      ...endpoint,
      trustAnchors: endpoint.trustAnchors.flatMap((pem) => readCertificates(pem).map(String)),
    },
  }
}

function reading<T>(target: string, action: () => T): T {
  try {
    return action()
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException
    if (code === 'ELOOP' || code === 'ENOTDIR')
      return refuse(target, 'is a link, or not a directory, where a store has a directory')
    throw new CertvendError('ERR_STORE_UNREADABLE', `cannot read ${target} (${code})`, { cause })
  }
}

function refuse(target: string, why: string): never {
  throw new CertvendError('ERR_STORE_UNSAFE', `${target} ${why}`, {
    hint: 'the agent makes no such thing: look at who writes to the state directory before anything else',
  })
}
