/** Every refusal of the vending machines in the field, as their sources and their users have it. */
import { describe, expect, it } from 'vitest'
import type { OldDialect } from './contracts/machines.ts'
import { deviceSerial, refusalOf, type Saying } from './dialect-attempt.ts'

type Case = [what: string, saying: Saying, code: string, remedy: string, hint?: RegExp]

const json = (body: unknown, status = 200): Saying => ({ status, body: JSON.stringify(body) })
const text = (body: string, status: number): Saying => ({ status, type: 'text/plain', body })
const atlas = (message: string, statusCode = 500): Saying =>
  json({ statusCode, status: 'ERROR', payload: { message } })
const gateway = (error: string, status = 400): Saying => json({ status: false, error }, status)

const amazon: Case[] = [
  [
    'a path that API Gateway does not have',
    json({ message: 'Missing Authentication Token' }, 403),
    'ERR_REQUEST_REFUSED',
    'operator',
    /stage/,
  ],
  ['throttling', json({ message: 'Too Many Requests' }, 429), 'ERR_SERVER_BUSY', 'retry'],
  ['a quota used up', json({ message: 'Limit Exceeded' }, 429), 'ERR_SERVER_BUSY', 'retry'],
]
const stage: Case = [
  'a stage that API Gateway does not have',
  json({ message: 'Forbidden' }, 403),
  'ERR_REQUEST_REFUSED',
  'operator',
  /stage/,
]

const table2018 = /item serialNumber=device-1/
const cases: Record<OldDialect, Case[]> = {
  'awslabs-2018': [
    ['Access Deny!', json('Access Deny!'), 'ERR_CLAIM_REFUSED', 'operator', table2018],
    ['Service error: 500!', json('Service error: 500!'), 'ERR_SERVER_BUSY', 'retry'],
    [
      'Identical serial number error!',
      json('Identical serial number error!'),
      'ERR_REQUEST_REFUSED',
      'operator',
      /policy device-1.*thing device-1.*certinfo from item serialNumber=device-1/,
    ],
    [
      'a root CA that could not be fetched',
      json('Can not get Get VeriSign Class 3 Public Primary G5 root CA certificate! '),
      'ERR_REQUEST_REFUSED',
      'operator',
      /certinfo from item serialNumber=device-1/,
    ],
    [
      'null, for a device that was vended before',
      json(null),
      'ERR_CLAIM_SPENT',
      'operator',
      /policy device-1.*thing device-1.*certinfo from item serialNumber=device-1.*certvend enroll --again/,
    ],
    [
      "a fork's {error:'Device Already Exists'}",
      json("{error:'Device Already Exists'}"),
      'ERR_CLAIM_SPENT',
      'operator',
      /thing device-1/,
    ],
    [
      "a branch's Device is already activated.",
      json('Device is already activated.'),
      'ERR_CLAIM_SPENT',
      'operator',
      /isActivated/,
    ],
    [
      "a branch's Device is disabled.",
      json('Device is disabled. Enable it to activate.'),
      'ERR_CLAIM_REFUSED',
      'operator',
      /isEnabled/,
    ],
    [
      'a function that failed',
      json({ errorMessage: 'Task timed out after 15.00 seconds' }),
      'ERR_SERVER_BUSY',
      'operator',
      /thing device-1/,
    ],
    [
      'a function that took too long',
      json({ message: 'Endpoint request timed out' }, 504),
      'ERR_SERVER_BUSY',
      'operator',
      /thing device-1/,
    ],
    stage,
    ...amazon,
  ],
  'awslabs-2020': [
    ['Access Denied', text('Access Denied', 500), 'ERR_CLAIM_REFUSED', 'operator', table2018],
    ['Service error', text('Service error', 500), 'ERR_SERVER_BUSY', 'retry'],
    [
      'Error issuing certificate!',
      text('Error issuing certificate!', 500),
      'ERR_REQUEST_REFUSED',
      'operator',
      /policy device-1.*thing device-1.*certinfo from item serialNumber=device-1/,
    ],
    [
      'a machine of 2018 that refuses',
      json('Access Deny!'),
      'ERR_REQUEST_REFUSED',
      'operator',
      /awslabs-2018/,
    ],
    [
      'a machine of 2018 that vended before',
      json(null),
      'ERR_REQUEST_REFUSED',
      'operator',
      /awslabs-2018/,
    ],
    ['Bad Request', text('Bad Request', 500), 'ERR_REQUEST_REFUSED', 'operator', /base path/],
    [
      'a root CA that could not be fetched',
      text('Can not get Amazon root CA certificate! ', 500),
      'ERR_SERVER_BUSY',
      'retry',
    ],
    [
      'a function that died',
      json({ message: 'Internal server error' }, 502),
      'ERR_SERVER_BUSY',
      'retry',
    ],
    [
      'a function that took too long',
      json({ message: 'Endpoint request timed out' }, 504),
      'ERR_SERVER_BUSY',
      'retry',
    ],
    stage,
    ...amazon,
  ],
  'iot-atlas': [
    [
      'Device not found',
      atlas('Device not found', 404),
      'ERR_CLAIM_REFUSED',
      'operator',
      /device_uid=device-1/,
    ],
    ['Missing input data', atlas('Missing input data'), 'ERR_REQUEST_REFUSED', 'operator', /proxy/],
    [
      'Device database access error',
      atlas('Device database access error'),
      'ERR_SERVER_BUSY',
      'retry',
    ],
    [
      'Device is already registered',
      atlas('Device is already registered'),
      'ERR_CLAIM_SPENT',
      'operator',
      /thing_device-1.*device_uid=device-1.*is_registered to the number 0/,
    ],
    [
      "Device isn't enabled",
      atlas("Device isn't enabled"),
      'ERR_CLAIM_REFUSED',
      'operator',
      /is_enabled/,
    ],
    [
      'Device token is not valid',
      atlas('Device token is not valid'),
      'ERR_CLAIM_REFUSED',
      'operator',
      /HMAC-SHA256/,
    ],
    [
      'Unable to create device certificates',
      atlas('Unable to create device certificates'),
      'ERR_SERVER_BUSY',
      'retry',
    ],
    ...[
      'Unable to attach policy to the certificate',
      'Unable to create thing',
      'Unable to attach certificate to the device',
      'Unable to download root CA',
      'Database error during device record update',
      'Device info couldnt updated.',
      'Error while getting IoT Core endpoint',
      'Invalid IoT Core endpoint response',
    ].map(
      (message): Case => [
        message,
        atlas(message),
        'ERR_REQUEST_REFUSED',
        'operator',
        /thing_device-1.*device_uid=device-1.*is_registered.*certvend enroll --again/,
      ],
    ),
    [
      'a function that failed',
      json({ errorMessage: 'Rate exceeded', errorType: 'ThrottlingException', stackTrace: [] }),
      'ERR_SERVER_BUSY',
      'operator',
      /thing_device-1/,
    ],
    stage,
    ...amazon,
  ],
  'gateway-2021': [
    [
      'Thing exists',
      gateway('Thing exists in the AWS IoT Account, exiting...'),
      'ERR_CLAIM_SPENT',
      'operator',
      /delete the thing device-1/,
    ],
    [
      'Error registering thing agent in AWS IoT',
      gateway('Error registering thing agent in AWS IoT'),
      'ERR_REQUEST_REFUSED',
      'operator',
      /delete the thing device-1.*certvend enroll --again/,
    ],
    [
      'Uncaught error...',
      gateway('Uncaught error...', 500),
      'ERR_REQUEST_REFUSED',
      'operator',
      /delete the thing device-1/,
    ],
    [
      'no token',
      json({ message: 'Unauthorized' }, 401),
      'ERR_CLAIM_REFUSED',
      'operator',
      /DeviceToken/,
    ],
    [
      'a token that is not in the list',
      json(
        { Message: 'User is not authorized to access this resource with an explicit deny' },
        403,
      ),
      'ERR_CLAIM_REFUSED',
      'operator',
      /DeviceToken/,
    ],
    [
      'a token that the authorizer refuses',
      json({ message: 'Forbidden' }, 403),
      'ERR_CLAIM_REFUSED',
      'operator',
      /DeviceToken/,
    ],
    ...amazon,
  ],
  'express-2017': [
    [
      '40010, already applied',
      json({ rootCA: 'x', conCheck: 40010 }),
      'ERR_CLAIM_SPENT',
      'operator',
      /seriaNum = 'device-1'/,
    ],
    [
      '40030, denied',
      json({ rootCA: 'x', conCheck: 40030 }),
      'ERR_CLAIM_REFUSED',
      'operator',
      /seriaNum = 'device-1'/,
    ],
    [
      '40090, bad token',
      json({ rootCA: 'x', conCheck: 40090 }),
      'ERR_CLAIM_REFUSED',
      'operator',
      /accessToken/,
    ],
    ['a code in quotes', json({ rootCA: 'x', conCheck: '40090' }), 'ERR_CLAIM_REFUSED', 'operator'],
    ['50010, service error', json({ rootCA: 'x', conCheck: 50010 }), 'ERR_SERVER_BUSY', 'retry'],
    ['Invalid requset!', text('Invalid requset!', 200), 'ERR_REQUEST_REFUSED', 'operator'],
    ['Access Deny!', text('Access Deny!', 200), 'ERR_REQUEST_REFUSED', 'operator'],
  ],
}

describe.each(Object.entries(cases) as [OldDialect, Case[]][])('%s', (dialect, all) => {
  it.each(all)('says %s', async (_, saying, code, remedy, hint) => {
    const error = await refusalOf(dialect, saying)
    expect({ code: error.code, remedy: error.remedy }).toEqual({ code, remedy })
    if (hint) expect(error.hint).toMatch(hint)
    expect(error.hint).not.toContain('{serial}')
    if (error.hint.includes('--again')) expect(error.hint).toContain(deviceSerial)
  })

  it('is asked for patience until a moment that it names', async () => {
    const throttled = dialect === 'express-2017' ? json({ conCheck: 50010 }) : amazon[1]![1]
    const error = await refusalOf(dialect, { ...throttled, headers: { 'retry-after': '120' } })
    expect(error).toMatchObject({
      code: 'ERR_SERVER_BUSY',
      retryAt: new Date('2027-03-01T12:02:00Z'),
    })
  })
})
