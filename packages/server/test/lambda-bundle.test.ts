/** The functions as they are deployed: bundled, and started in a process of their own. */
import { execFileSync, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { beforeAll, describe, expect, it } from 'vitest'
import { httpApiEvent } from './gateway-events.ts'

const script = path.resolve(import.meta.dirname, '../packaging/lambda.mjs')
let out = ''

/** Calls a bundled function once, in an environment of its own; what it answered and what it wrote. */
function call(name: string, event: unknown, env: Record<string, string>) {
  const program = `
    const { handler } = await import(${JSON.stringify(pathToFileURL(path.join(out, `${name}.mjs`)).href)})
    const result = await handler(${JSON.stringify(event)}).catch((error) => ({ thrown: error.message }))
    process.stdout.write('\\nRESULT ' + JSON.stringify(result))
    process.exit(0)`
  const ran = spawnSync(process.execPath, ['--input-type=module', '--eval', program], {
    encoding: 'utf8',
    timeout: 30_000,
    env: { PATH: process.env.PATH, AWS_REGION: 'eu-west-1', ...env },
  })
  const [log = '', result = ''] = ran.stdout.split('\nRESULT ')
  return { log, err: ran.stderr, result: JSON.parse(result || 'null') }
}

const deployed = {
  CERTVEND_DEVICE_TABLE: 'devices',
  CERTVEND_LEDGER_TABLE: 'ledger',
  CERTVEND_POLICY: 'device-policy',
  CERTVEND_MQTT_HOST: 'mqtt.example',
  // Nobody listens there: every call to AWS fails at once.
  AWS_ENDPOINT_URL: 'http://127.0.0.1:9',
  AWS_ACCESS_KEY_ID: 'test',
  AWS_SECRET_ACCESS_KEY: 'the-secret-key',
  AWS_MAX_ATTEMPTS: '1',
}

describe('the bundle', () => {
  beforeAll(() => {
    out = fs.mkdtempSync(path.join(fs.realpathSync(tmpdir()), 'certvend-lambda-'))
    // As where a function is deployed: what is not in the bundle is not found.
    execFileSync(process.execPath, [script, '--out', out])
    return () => fs.rmSync(out, { recursive: true })
  }, 60_000)

  it('is small', () => {
    const sizes = fs.readdirSync(out).map((name) => fs.statSync(path.join(out, name)).size)
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThan(1_500_000)
  })

  it('vends, as far as it gets without a registry, and says when to come again', () => {
    const health = httpApiEvent({ path: '/Prod/healthz' })
    const { log, result } = call('vend', health, deployed)
    expect(result).toMatchObject({ statusCode: 503 })
    expect(result.headers).toHaveProperty('retry-after')
    expect(log).toContain('"operation":"healthz","status":503')
    expect(log).not.toContain('the-secret-key')
  }, 40_000)

  it('without its environment says which variables are missing, and answers "later"', () => {
    const { log, result } = call('vend', httpApiEvent({ path: '/healthz' }), {})
    expect(result).toMatchObject({ statusCode: 503 })
    for (const name of ['CERTVEND_DEVICE_TABLE', 'CERTVEND_LEDGER_TABLE', 'CERTVEND_POLICY'])
      expect(log).toContain(name)
  })

  it.each(['activate', 'confirm', 'sweep'])(
    'without its environment %s fails, to be called again',
    (name) => {
      expect(call(name, {}, {}).result).toEqual({
        thrown: expect.stringContaining('could not start'),
      })
    },
  )

  it('activates nothing for an event that is not AWS IoT’s', () => {
    expect(call('activate', { certificateId: 'x' }, deployed).result).toEqual({
      thrown: expect.stringContaining('not an event of AWS IoT'),
    })
  })

  it('confirms nothing for a session that no certificate opened', () => {
    const event = { eventType: 'connected', principalIdentifier: 'AIDACKCEVSQ6C2EXAMPLE' }
    expect(call('confirm', event, deployed).result).toBe(false)
  })
})
