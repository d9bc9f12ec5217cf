/**
 * How a session opens, or does not, with a broker that misbehaves: deadlines, refusals, network
 * faults.
 */
import type { TLSSocket } from 'node:tls'
import { connect } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { credentialFor } from './device.ts'
import { accepting, answering, at, device, deviceCa, encounters, failureOf } from './encounter.ts'
import { connack, type Talk } from './hostile-server.ts'
import { certify, yesteryear } from './pki.ts'

describe('a broker that misbehaves', () => {
  const met = encounters()
  const { meet } = met
  const connack5 = (reasonCode: number): Buffer => Buffer.from([0x20, 3, 0, reasonCode, 0])

  it('by never answering CONNECT runs into the deadline', async () => {
    const credential = await meet(() => {})
    const failure = await failureOf(connect(credential, { deadlineMs: 100 }))
    expect(failure).toMatchObject({ code: 'ERR_TIMEOUT', remedy: 'retry' })
  })

  it('by never answering the TLS handshake runs into the deadline', async () => {
    const credential = await meet(() => {}, { plain: true })
    const failure = await failureOf(connect(credential, { deadlineMs: 100 }))
    expect(failure).toMatchObject({ code: 'ERR_TIMEOUT', remedy: 'retry' })
  })

  it('by dripping CONNACK for ever runs into the deadline', async () => {
    let dripping: NodeJS.Timeout | undefined
    const credential = await meet((socket) => {
      socket.once('data', () => {
        socket.write(Buffer.from([0x20, 0xff, 0xff, 0x7f]))
        dripping = setInterval(() => socket.write('\0'), 10)
      })
    })
    const failure = await failureOf(connect(credential, { deadlineMs: 200 }))
    clearInterval(dripping)
    expect(failure).toMatchObject({ code: 'ERR_TIMEOUT' })
  })

  it.each<readonly [string, Talk]>([
    ['ends the connection at once', (socket) => void socket.end()],
    ['ends the connection after CONNECT', (socket) => void socket.once('data', () => socket.end())],
    ['resets the connection after CONNECT', (socket, reset) => void socket.once('data', reset)],
    [
      'ends the connection in the middle of CONNACK',
      (socket) => void socket.once('data', () => socket.end(Buffer.from([0x20, 2]))),
    ],
  ])('and %s has refused the session, as IoT Core does', async (_title, talk) => {
    const failure = await failureOf(connect(await meet(talk)))
    expect(failure).toMatchObject({ code: 'ERR_SESSION_REFUSED', remedy: 'retry' })
  })

  it('and ends the connection before TLS is a network fault', async () => {
    const credential = await meet((socket) => void socket.destroy(), { plain: true })
    expect(await failureOf(connect(credential))).toMatchObject({ code: 'ERR_NETWORK' })
  })

  it('and is not there is a network fault', async () => {
    const credential = await meet(() => {})
    await met.peer.close()
    const failure = await failureOf(connect(credential))
    expect(failure).toMatchObject({ code: 'ERR_NETWORK', remedy: 'retry' })
    expect((failure as Error).message).toContain('ECONNREFUSED')
  })

  it('and has a name that nobody knows is a network fault', async () => {
    await meet(() => {})
    const nowhere = credentialFor(device, at(met.peer.port, { host: 'mqtt.invalid' }))
    expect(await failureOf(connect(nowhere))).toMatchObject({ code: 'ERR_NETWORK' })
  })

  it.each([
    [1, 'ERR_SESSION_REFUSED', 'operator'],
    [2, 'ERR_SESSION_REFUSED', 'retry'],
    [3, 'ERR_SERVER_BUSY', 'retry'],
    [4, 'ERR_SESSION_REFUSED', 'retry'],
    [5, 'ERR_SESSION_REFUSED', 'retry'],
  ] as const)('with CONNACK %i means %s (%s)', async (returnCode, code, remedy) => {
    const failure = await failureOf(connect(await meet(answering(connack(returnCode)))))
    expect(failure).toMatchObject({ code, remedy })
    expect((failure as Error).message).toContain(`CONNACK ${returnCode}`)
  })

  it.each([
    [128, 'ERR_SESSION_REFUSED', 'operator'],
    [132, 'ERR_SESSION_REFUSED', 'operator'],
    [133, 'ERR_SESSION_REFUSED', 'retry'],
    [135, 'ERR_SESSION_REFUSED', 'retry'],
    [136, 'ERR_SERVER_BUSY', 'retry'],
    [137, 'ERR_SERVER_BUSY', 'retry'],
    [151, 'ERR_SERVER_BUSY', 'retry'],
  ] as const)('with CONNACK %i of MQTT 5 means %s (%s)', async (reasonCode, code, remedy) => {
    const credential = await meet(answering(connack5(reasonCode)))
    expect(await failureOf(connect(credential, { protocol: '5' }))).toMatchObject({ code, remedy })
  })

  it.each([
    ['HTTP', Buffer.from('HTTP/1.1 400 Bad Request\r\n\r\n')],
    ['zeros', Buffer.alloc(64)],
    ['0xff', Buffer.alloc(64, 0xff)],
    ['SUBACK first', Buffer.from([0x90, 3, 0, 1, 0])],
    ['PUBLISH first', Buffer.from([0x30, 3, 0, 1, 0x61])],
  ])('that answers CONNECT with %s brings no session and no crash', async (_title, bytes) => {
    const credential = await meet(answering(bytes))
    const failure = await failureOf(connect(credential, { deadlineMs: 300 }))
    expect(failure).toMatchObject({ name: 'CertvendError', remedy: 'retry' })
  })

  it('hears the host name (SNI), the ALPN name, and the whole certificate chain', async () => {
    const heard: Record<string, unknown> = {}
    const credential = await meet(
      (socket) => {
        const secured = socket as TLSSocket & { servername?: string }
        heard.servername = secured.servername
        heard.alpn = secured.alpnProtocol
        heard.subject = secured.getPeerCertificate().subject?.CN
        heard.issuer = secured.getPeerCertificate(true).issuerCertificate?.subject?.CN
        accepting(socket, () => {})
      },
      {
        tls: {
          requestCert: true,
          rejectUnauthorized: false,
          ALPNProtocols: ['mqtt', 'x-amzn-mqtt-ca'],
        },
      },
    )
    const session = await connect({
      ...credential,
      certificateChain: device.certificate + deviceCa.certificate,
      endpoint: { ...credential.endpoint, alpn: 'x-amzn-mqtt-ca' },
    })
    await session.close()
    expect(heard).toEqual({
      servername: 'localhost',
      alpn: 'x-amzn-mqtt-ca',
      subject: 'device-1',
      issuer: 'Device CA',
    })
  })

  it('is not even called with a certificate that has expired by our clock', async () => {
    const expired = await certify('device-1', { issuer: deviceCa, notAfter: yesteryear })
    await meet(accepting)
    const failure = await failureOf(connect(credentialFor(expired, at(met.peer.port))))
    expect(failure).toMatchObject({ code: 'ERR_CREDENTIAL_EXPIRED', remedy: 'enroll' })
    expect(met.peer.opened).toBe(0)
  })

  it('is not even called with a key that belongs to another certificate', async () => {
    await meet(accepting)
    const { certificate } = await certify('device-1', { issuer: deviceCa })
    const credential = credentialFor(device, at(met.peer.port), { certificateChain: certificate })
    await failureOf(connect(credential))
    expect(met.peer.opened).toBe(0)
  })
})
