/**
 * How a function starts. What it is made of is opened while Lambda starts it, where the processor is
 * whole and the time is not billed by the request; what fails then is tried again by each call.
 */
import type { Lambda } from '../lambda.ts'
import type { Log } from '../log.ts'

/**
 * @param make opens what the function needs
 * @param unready answers while that fails; by default the call fails, and Lambda or AWS IoT repeats it
 */
export async function start(
  make: () => Promise<Lambda>,
  log: Log,
  unready: Lambda = async () => {
    throw new Error('the function could not start; see its log')
  },
): Promise<Lambda> {
  const attempt = async (): Promise<Lambda | undefined> => {
    try {
      return await make()
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      log({ level: 'error', event: 'failed', operation: 'start', reason })
      return undefined
    }
  }
  let ready = await attempt()
  return async (event) => {
    ready ??= await attempt()
    return (ready ?? unready)(event)
  }
}
