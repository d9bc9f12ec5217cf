/** Our own protocol, version 1 (`wire.ts`, `docs/protocol.md`): the device's key, asked for safely. */
import { judgeReply } from '../verdict.ts'
import { isToken, mediaTypes, parseEnrollReply, paths, resolve } from '../wire.ts'
import type { Dialect } from './dialect.ts'

export const certvend: Dialect = {
  name: 'certvend',
  repeat: 'safe',
  keyOrigin: 'device',
  // docs/protocol.md has them: problem documents with a status, judged by verdict.ts.
  refusals: [],
  request({ url, claim, csr }) {
    if (!isToken(claim.token)) throw new TypeError('the token cannot travel in a header')
    return {
      method: 'POST',
      url: resolve(url, paths.enroll),
      headers: {
        accept: `${mediaTypes.json}, ${mediaTypes.problem}`,
        authorization: `Bearer ${claim.token}`,
        'content-type': mediaTypes.json,
      },
      body: JSON.stringify({ deviceSerial: claim.deviceSerial, csr }),
    }
  },
  recognise: () => undefined,
  read: (response, reading) => judgeReply(response, parseEnrollReply, reading),
}
