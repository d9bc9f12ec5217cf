/** Sessions whose caller loses patience: the reason comes back, and nothing is left behind. */
import { getEventListeners } from 'node:events'
import { connect } from '@certvend/client'
import { describe, expect, it } from 'vitest'
import { accepting, encounters, failureOf } from './encounter.ts'
import { broker } from './hostile-server.ts'

describe('a broker that misbehaves', () => {
  const met = encounters()
  const { meet } = met

  describe('or a caller that loses patience', () => {
    it('opens no connection when the signal was aborted before', async () => {
      const credential = await meet(accepting)
      const reason = new Error('no longer wanted')
      const signal = AbortSignal.abort(reason)
      expect(await failureOf(connect(credential, { signal }))).toBe(reason)
      expect(met.peer.opened).toBe(0)
    })

    it.each([
      ['TLS', true],
      ['MQTT', false],
    ])(
      'rejects with the reason when aborted while %s is silent, and hangs up',
      async (_what, plain) => {
        const controller = new AbortController()
        const reason = new Error('no longer wanted')
        const hungUp = new Promise<void>((resolve) => {
          void meet(
            (socket) => {
              socket.resume().once('close', resolve)
              controller.abort(reason)
            },
            { plain },
          ).then(async (credential) => {
            expect(await failureOf(connect(credential, { signal: controller.signal }))).toBe(reason)
          })
        })
        await hungUp
        expect(getEventListeners(controller.signal, 'abort')).toEqual([])
      },
    )

    it('closes an open session when the signal aborts', async () => {
      const controller = new AbortController()
      const session = await connect(await meet(accepting), { signal: controller.signal })
      controller.abort()
      expect(await session.ended).toEqual({ reason: 'closed' })
    })

    it('stops waiting for one publish and keeps the session', async () => {
      const credential = await meet(broker())
      const session = await connect(credential)
      const controller = new AbortController()
      const failing = failureOf(session.publish('up', 'x', { signal: controller.signal }))
      const reason = new Error('too slow')
      controller.abort(reason)
      expect(await failing).toBe(reason)
      expect(getEventListeners(controller.signal, 'abort')).toEqual([])
      await session.subscribe('down')
      await session.close()
    })

    it('refuses a publish whose signal was aborted before, and sends nothing', async () => {
      const session = await connect(await meet(accepting))
      const before = met.peer.received.length
      const signal = AbortSignal.abort(new Error('no'))
      await failureOf(session.publish('up', 'x', { signal }))
      await session.close()
      await expect.poll(() => met.peer.received.subarray(before).toString('hex')).toBe('e000')
    })

    it('may close as often as it likes, also all at once', async () => {
      const session = await connect(await meet(accepting))
      await Promise.all([session.close(), session.close(), session.close()])
      await session.close()
      expect(await session.ended).toEqual({ reason: 'closed' })
      expect(await failureOf(session.publish('up', 'x'))).toMatchObject({
        code: 'ERR_SESSION_LOST',
      })
    })
  })
})
