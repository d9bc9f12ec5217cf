/** Our own protocol, version 1 (`wire.ts`, `docs/protocol.md`): the device's key, asked for safely. */
import { judgeReply } from '../verdict.ts'
import { mediaTypes, parseEnrollReply, paths, resolve } from '../wire.ts'
import type { Dialect } from './dialect.ts'

export const certvend: Dialect = {
  name: 'certvend',
  repeat: 'safe',
  request: ({ url, claim, csr }) => ({
    method: 'POST',
    url: resolve(url, paths.enroll),
    headers: {
      accept: `${mediaTypes.json}, ${mediaTypes.problem}`,
      authorization: `Bearer ${claim.token}`,
      'content-type': mediaTypes.json,
    },
    body: JSON.stringify({ deviceSerial: claim.deviceSerial, csr }),
  }),
  read: (response, reading) => judgeReply(response, parseEnrollReply, reading),
}
