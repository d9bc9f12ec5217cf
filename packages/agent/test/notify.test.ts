import { describe, expect, it } from 'vitest'
import { openNotify } from '../src/notify.ts'

/** What systemd would hear; each call takes until the next turn of the loop. */
function hearing(environment: NodeJS.ProcessEnv = { NOTIFY_SOCKET: '/run/systemd/notify' }) {
  const heard: string[][] = []
  const notify = openNotify(environment, async (assignments) => {
    heard.push([...assignments])
    await new Promise((resolve) => setImmediate(resolve))
  })
  const quiet = async (): Promise<void> => {
    for (let turns = 0; turns < 5; turns++) await new Promise((resolve) => setImmediate(resolve))
  }
  return { heard, notify, quiet }
}

describe('systemd', () => {
  it('is told that we are ready once, and of a status only when it is another', async () => {
    const { heard, notify, quiet } = hearing()
    for (const words of ['starting', 'online', 'online']) {
      notify.status(words)
      await quiet()
    }
    notify.ready()
    notify.ready()
    await quiet()
    expect(heard).toEqual([['STATUS=starting'], ['STATUS=online'], ['READY=1']])
  })

  it('hears the latest of what came while it listened', async () => {
    const { heard, notify, quiet } = hearing()
    for (const words of ['one', 'two', 'three']) notify.status(words)
    notify.ready()
    await quiet()
    expect(heard).toEqual([['STATUS=one'], ['STATUS=three', 'READY=1']])
  })

  it('is fed each time, and hears one line whatever the words', async () => {
    const { heard, notify, quiet } = hearing()
    notify.alive()
    await quiet()
    notify.alive()
    await quiet()
    notify.status('two\nREADY=1 lines')
    await quiet()
    expect(heard).toEqual([['WATCHDOG=1'], ['WATCHDOG=1'], ['STATUS=two READY=1 lines']])
  })

  it('says how often it wants to be fed: half of its patience', () => {
    const environment = { NOTIFY_SOCKET: '/x', WATCHDOG_USEC: '600000000' }
    expect(openNotify(environment, async () => {}).aliveEveryMs).toBe(300_000)
    expect(openNotify({ NOTIFY_SOCKET: '/x' }, async () => {}).aliveEveryMs).toBeUndefined()
  })

  it('is not spoken to where it did not start us, and is not left to our children', async () => {
    const environment: NodeJS.ProcessEnv = { WATCHDOG_USEC: '1', PATH: '/bin' }
    const { heard, notify, quiet } = hearing(environment)
    notify.ready()
    notify.alive()
    await quiet()
    expect(heard).toEqual([])
    expect(environment).toEqual({ PATH: '/bin' })
  })

  it('missing its messenger does not end us', async () => {
    const notify = openNotify({ NOTIFY_SOCKET: '/nonexistent/socket' })
    notify.ready()
    notify.status('still here')
    await new Promise((resolve) => setImmediate(resolve))
  })
})
