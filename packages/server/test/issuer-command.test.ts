/** The words that choose an issuer, and the CA in a file: what needs no AWS. */
import { readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { makeWorkplace, type Workplace } from './command.ts'

let place: Workplace
beforeEach(() => {
  place = makeWorkplace()
})
afterEach(() => place.remove())

const run = (line: string) => place.run(line.split(' '))
const kms = 'arn:aws:kms:eu-west-1:123456789012:key/1234'

describe('certvend-server ca create', () => {
  it('makes a CA that only this user can read, once', async () => {
    const { code, out, err } = await run('ca create')
    expect([code, out.startsWith('-----BEGIN CERTIFICATE-----')]).toEqual([0, true])
    expect(err).toMatch(/made the CA [0-9a-f]{64}\n$/)
    const path = join(place.directory, 'certvend-data', 'device-ca.key.pem')
    expect(statSync(path).mode & 0o777).toBe(0o600)
    const before = readFileSync(path, 'utf8')
    const again = await run('ca create')
    expect(again).toMatchObject({ code: 3, out: '' })
    expect(again.err).toContain('a CA is not replaced')
    expect(readFileSync(path, 'utf8')).toBe(before)
  })

  it('makes the CA that serve then uses', async () => {
    const made = (await run('ca create --json')).out
    const server = place.start(['serve', '--port', '0', '--listen', '127.0.0.1'])
    await server.firstLine
    expect(await server.stop('SIGTERM')).toBe(0)
    const kept = readFileSync(join(place.directory, 'certvend-data', 'device-ca.pem'), 'utf8')
    expect(JSON.parse(made).certificate).toBe(kept)
  })
})

describe('what cannot be meant is refused before anything is done', () => {
  it.each([
    ['serve --issuer aws', 2, 'not one of local, aws-iot, aws-iot-own-ca, aws-iot-jitr'],
    ['serve --issuer aws-iot --aws-region Ireland', 2, 'not an AWS region'],
    ['serve --issuer aws-iot --quota-share 0', 2, 'above 0 and up to 1'],
    ['serve --issuer aws-iot-own-ca', 2, 'make a CA: certvend-server ca create'],
    [`serve --issuer aws-iot-jitr --ca-key ${kms}`, 2, 'name it: --ca-certificate FILE'],
    ['serve --issuer aws-iot-jitr --ca-key arn:aws:s3:::bucket', 2, 'neither of Secrets Manager'],
    ['sweep', 2, 'name it: --issuer aws-iot'],
    [`ca create --ca-key ${kms}`, 2, 'name it: --ca-certificate FILE'],
    ['ca register', 2, 'make a CA: certvend-server ca create'],
    ['device add AA:BB --issuer aws-iot', 2, '--thing-name AA-BB'],
  ])('%s', async (line, code, words) => {
    const refused = await run(line)
    expect(refused).toMatchObject({ code, out: '' })
    expect(refused.err).toContain(words)
    expect(refused.err).not.toContain('    at ')
  })

  it('a CA that others can read', async () => {
    await run('ca create')
    const path = join(place.directory, 'open.pem')
    const ca = readFileSync(join(place.directory, 'certvend-data', 'device-ca.key.pem'))
    writeFileSync(path, ca, { mode: 0o644 })
    expect(await run(`ca register --ca-key ${path}`)).toMatchObject({
      code: 3,
      err: expect.stringContaining(`chmod 600 ${path}`),
    })
  })

  it('a CA that is none', async () => {
    const path = join(place.directory, 'ca.pem')
    writeFileSync(path, 'no key', { mode: 0o600 })
    expect(await run(`ca register --ca-key ${path}`)).toMatchObject({
      code: 3,
      err: expect.stringContaining('does not hold a private key and its certificate'),
    })
  })
})
