/**
 * The vending machine of AWS IoT Atlas: `POST …/registration` with `device_uid` and `device_token`.
 *
 * Its integration had no proxy: HTTP always says 200, and the status stands in the body. It asked for
 * the device before it looked at the token and so told strangers which devices there are; here an
 * unknown device and a wrong token are one answer.
 */
import type { ProblemCode } from '@certvend/client/wire'
import { askedBy, honest, json, type LegacyDialect, members } from './dialect.ts'

const stranger = 'Device token is not valid'

const texts: Partial<Record<ProblemCode, string>> = {
  'malformed-request': 'Missing input data',
  'claim-refused': stranger,
  'too-many-attempts': stranger,
  'device-disabled': "Device isn't enabled",
  'claim-spent': 'Device is already registered',
  busy: 'Device database access error',
}

export const iotAtlas: LegacyDialect = {
  name: 'iot-atlas',
  path: '/registration',
  method: 'POST',
  certificates: 5,
  direct: ['device_uid', 'device_token'],
  read({ body }) {
    const { device_uid: uid, device_token: token } = members(body)
    return askedBy(uid, token)
  },
  accept: (vended) =>
    json(200, {
      statusCode: 200,
      status: 'SUCCESS',
      payload: {
        endpoint: vended.endpoint,
        thing_name: vended.thingName,
        certificates: {
          device_certificate: vended.certificatePem,
          root_ca: vended.rootCa,
        },
        keyPair: {
          publicKey: vended.keyPair.publicKey,
          privateKey: vended.keyPair.privateKey,
        },
      },
    }),
  refuse: (code) =>
    json(200, {
      statusCode: honest(code),
      status: 'ERROR',
      payload: { message: texts[code] ?? 'Unable to create device certificates' },
    }),
  turnAway: () => json(honest('method-not-allowed'), { message: 'Missing Authentication Token' }),
}
