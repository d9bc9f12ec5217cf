/** What Fleet Provisioning is given, judged before anything is sent. */
import {
  createFleetClaim,
  createProvisioningTemplate,
  readProvisioningClaim,
} from '@certvend/client/fleet-provisioning'
import { describe, expect, it } from 'vitest'
import { certify } from './pki.ts'

describe('before anything is sent', () => {
  it.each(['', 'a b', 'x'.repeat(37), '../x', 'ä', 'a/b', '+'])(
    'refuses the template name "%s"',
    (name) => {
      const endpoint = { host: 'localhost', port: 1, trustAnchors: [] }
      expect(() => createProvisioningTemplate({ name, endpoint })).toThrow(TypeError)
    },
  )

  it('refuses parameters that are no text, and a name that no thing can have', () => {
    const endpoint = { host: 'localhost', port: 1, trustAnchors: [] }
    const parameters = { SerialNumber: 1 } as never
    expect(() => createProvisioningTemplate({ name: 'x', endpoint, parameters })).toThrow(TypeError)
    expect(() => createProvisioningTemplate({ name: 'x', endpoint, thingName: 'a b' })).toThrow(
      TypeError,
    )
  })

  it('refuses claims that are none, without quoting them', async () => {
    const one = await certify('one')
    const two = await certify('two')
    const parts = { deviceSerial: 'SN-1', certificateChain: one.certificate }
    expect(() => createFleetClaim({ ...parts, privateKey: two.privateKey })).toThrow(
      /not the claim/,
    )
    expect(() => createFleetClaim({ ...parts, privateKey: 'SECRET' })).toThrow(/^(?!.*SECRET)/)
    expect(() => readProvisioningClaim('{"keyPair":"SECRET"}', 'SN-1')).toThrow(/^(?!.*SECRET)/)
    expect(() => readProvisioningClaim('SECRET', 'SN-1')).toThrow(/^(?!.*SECRET)/)
    const whole = createFleetClaim({ ...parts, privateKey: one.privateKey })
    expect(JSON.stringify(whole)).not.toContain('PRIVATE')
  })
})
