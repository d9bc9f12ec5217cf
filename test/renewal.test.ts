/** Renewal over the wire: the certificate in use is shown by mutual TLS, its successor waits for its proof. */
import fs from 'node:fs'
import {
  connect,
  createClaim,
  createVendingServer,
  enroll,
  openCredentialStore,
  reenroll,
  renewalDue,
  retire,
} from '@certvend/client'
import { renewIfDue } from '@certvend/examples/renewal.js'
import { type Lab, type LabOptions, startLab } from '@certvend/server/lab'
import { expect, it, onTestFinished } from 'vitest'
import { temporaryDirectory } from './temporary.ts'

async function enrolled(options: LabOptions = {}) {
  const lab: Lab = await startLab(options)
  onTestFinished(() => lab.close())
  const server = createVendingServer({ url: lab.vendingUrl, pins: lab.pins })
  const directory = temporaryDirectory()
  const store = await openCredentialStore(directory)
  onTestFinished(() => store.close())
  const first = await enroll(store, server, createClaim(await lab.addDevice('gw-1')))
  return { lab, server, store, directory, first }
}

it('leaves the successor waiting beside the credential in use, with another key', async () => {
  const { lab, server, store, first } = await enrolled()
  const successor = await reenroll(store, server)
  expect(successor.certificateId).not.toBe(first.certificateId)
  expect(store.current()?.certificateId).toBe(first.certificateId)
  expect(store.pending()).toMatchObject({ state: 'issued', generation: 2 })
  const before = await connect(first) // still good
  await before.close()
  const session = await connect(successor)
  expect(session.thingName).toBe('gw-1')
  store.promote()
  expect(store.current()?.certificateId).toBe(successor.certificateId)
  await session.close()
  await expect(connect(first)).rejects.toMatchObject({ code: 'ERR_SESSION_REFUSED' })
  const states = (await lab.registry.certificates('gw-1')).map(({ status }) => status)
  expect(states).toEqual(['ACTIVE', 'INACTIVE'])
})

it('asks with the same key again when the reply was lost, and gets the same certificate', async () => {
  let drop = true
  const { lab, server, store } = await enrolled({
    async intercept(request, answer) {
      const response = await answer()
      if (!drop || !request.url.endsWith('/v1/reenroll')) return response
      drop = false
      return new Response('lost', { status: 502 })
    },
  })
  await expect(reenroll(store, server)).rejects.toMatchObject({ code: 'ERR_SERVER_BUSY' })
  const { certificateId } = await reenroll(store, server)
  const issued = await lab.registry.certificates('gw-1')
  expect(issued.map((one) => one.certificateId)).toContain(certificateId)
  expect(issued).toHaveLength(2)
})

it('says to re-arm where nobody renews by certificate, and leaves the credential in use alone', async () => {
  const { server, store, first } = await enrolled({
    intercept: async (request, answer) =>
      request.url.endsWith('/v1/enroll')
        ? answer()
        : new Response('{"type":"urn:certvend:problem:not-found"}', {
            status: 404,
            headers: { 'content-type': 'application/problem+json' },
          }),
  })
  await expect(reenroll(store, server)).rejects.toMatchObject({
    code: 'ERR_REQUEST_REFUSED',
    hint: expect.stringContaining('certvend enroll --again'),
  })
  expect(store.current()?.certificateId).toBe(first.certificateId)
})

it('is refused to a certificate that was revoked, and shows it to no server but the pinned', async () => {
  const { lab, server, store, first } = await enrolled()
  const sibling = await lab.serveUnderSibling()
  const elsewhere = createVendingServer({ url: sibling.vendingUrl, pins: lab.pins })
  await expect(reenroll(store, elsewhere)).rejects.toMatchObject({ code: 'ERR_SERVER_UNTRUSTED' })
  await lab.registry.setCertificateStatus(first.certificateId, 'REVOKED', new Date())
  await expect(reenroll(store, server)).rejects.toMatchObject({
    code: 'ERR_CREDENTIAL_REFUSED',
    remedy: 'enroll',
  })
  expect(store.pending()).toMatchObject({ state: 'requested' })
})

it('retires a certificate for good', async () => {
  const { lab, server, first } = await enrolled()
  await retire(first, server)
  await retire(first, server)
  expect((await lab.registry.findCertificate(first.certificateId))?.status).toBe('REVOKED')
  await expect(connect(first)).rejects.toMatchObject({ code: 'ERR_SESSION_REFUSED' })
})

it('erases a store: no key is left, neither of what is in use nor of a successor', async () => {
  const { server, store, directory } = await enrolled()
  await reenroll(store, server)
  fs.writeFileSync(`${directory}/claim-token`, 'a-token')
  fs.writeFileSync(`${directory}/.current.0123456789abcdef`, 'left by a crash')
  fs.writeFileSync(`${directory}/notes.txt`, "somebody else's")
  store.erase()
  expect(store.current()).toBeUndefined()
  expect(store.pending()).toBeUndefined()
  expect(fs.readdirSync(directory).sort()).toEqual(['lock', 'notes.txt'])
})

it('is done in time by firmware with a few lines, also after a power cut, and asks nobody before', async () => {
  const { lab, server, store, first } = await enrolled()
  const due = renewalDue(first)
  expect(await renewIfDue(store, server, new Date(due.getTime() - 1))).toBe(false)
  expect(lab.requests).toHaveLength(1)
  expect(await renewIfDue(store, server, due)).toBe(true)
  const second = store.current()!
  expect(second.certificateId).not.toBe(first.certificateId)
  const third = await reenroll(store, server) // and the power goes
  expect(await renewIfDue(store, server, renewalDue(second))).toBe(true)
  expect(store.current()?.certificateId).toBe(third.certificateId)
  const states = (await lab.registry.certificates('gw-1')).map(({ status }) => status)
  expect(states).toEqual(['ACTIVE', 'INACTIVE', 'INACTIVE'])
})
