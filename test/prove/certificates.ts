/**
 * Certificates by the smallest of CAs, made at once and of constant size, so that two recordings of
 * the same operations differ in no length. X.509 (RFC 5280 section 4.1): version 1 for an end entity,
 * version 3 for the CA, signed with Ed25519.
 */
import {
  createHash,
  createPrivateKey,
  createPublicKey,
  type KeyObject,
  sign,
  X509Certificate,
} from 'node:crypto'
import type { Issued } from '@certvend/client'

function tlv(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const body = Buffer.concat(parts)
  const size = body.length
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff]
  return Buffer.concat([Buffer.from([tag, ...length]), body])
}

const sequence = (...parts: readonly Uint8Array[]): Buffer => tlv(0x30, ...parts)
const ed25519 = sequence(tlv(0x06, Buffer.from('2b6570', 'hex')))
const commonName = tlv(0x06, Buffer.from('550403', 'hex'))
const name = (text: string): Buffer =>
  sequence(tlv(0x31, sequence(commonName, tlv(0x0c, Buffer.from(text)))))
const validity = sequence(
  tlv(0x17, Buffer.from('260101000000Z')),
  tlv(0x17, Buffer.from('460101000000Z')),
)

const version3 = tlv(0xa0, Buffer.from([0x02, 0x01, 0x02]))
/** The one extension of a CA: critical basicConstraints, cA TRUE (RFC 5280 section 4.2.1.9). */
const isCa = tlv(
  0xa3,
  sequence(
    sequence(
      tlv(0x06, Buffer.from('551d13', 'hex')),
      Buffer.from([0x01, 0x01, 0xff]),
      tlv(0x04, sequence(Buffer.from([0x01, 0x01, 0xff]))),
    ),
  ),
)

function certificate(
  serial: number,
  subject: string,
  publicKey: KeyObject,
  ca: { name: string; key: KeyObject },
): string {
  const itself = subject === ca.name
  const body = sequence(
    ...(itself ? [version3] : []),
    tlv(0x02, Buffer.from([0x40, serial >> 8, serial & 0xff])),
    ed25519,
    name(ca.name),
    validity,
    name(subject),
    publicKey.export({ type: 'spki', format: 'der' }),
    ...(itself ? [isCa] : []),
  )
  const signature = tlv(0x03, Buffer.from([0]), sign(null, body, ca.key))
  return new X509Certificate(sequence(body, ed25519, signature)).toString()
}

/** Known to all, so that processes agree on what a vending server would answer (RFC 8410 section 7). */
const caKey = createPrivateKey({
  key: Buffer.concat([Buffer.from('302e020100300506032b657004220420', 'hex'), Buffer.alloc(32, 7)]),
  format: 'der',
  type: 'pkcs8',
})
const ca = { name: 'Certvend prover CA', key: caKey }

/** What a vending server would answer for `publicKey`; every part differs with `serial`. */
export function issuedFor(publicKey: KeyObject, serial: number): Issued {
  const certificateChain = certificate(serial, 'gateway-0001', publicKey, ca)
  const anchor = certificate(serial + 0x8000, ca.name, createPublicKey(ca.key), ca)
  return {
    deviceSerial: 'gateway-0001',
    thingName: 'gateway-0001',
    certificateId: createHash('sha256')
      .update(new X509Certificate(certificateChain).raw)
      .digest('hex'),
    keyOrigin: 'device',
    certificateChain,
    endpoint: { host: 'mqtt.example.com', port: 8883, trustAnchors: [anchor] },
    issuedAt: new Date(Date.UTC(2026, 11, 1, 0, 0, serial % 60)),
  }
}
