/** What a command has the running agent do: that one holds the store, and the session. */
import { CertvendError } from '@certvend/client'
import { ask, type Request, resultOf } from './socket.ts'

/** How long the agent may take, in milliseconds: an exchange, a farewell, a session. */
const longestMs = 120_000

/** Whether an agent runs there that answers this user. */
export const hasAgent = async (socketDirectory: string): Promise<boolean> =>
  (await ask(socketDirectory, 'control', { do: 'status' })) !== undefined

/**
 * Has the agent do it, and waits for its result.
 *
 * @throws what the agent met; `ERR_TIMEOUT` when it left in the middle: it may have been done
 */
export async function throughAgent(socketDirectory: string, request: Request): Promise<unknown> {
  const answer = await ask(socketDirectory, 'control', request, longestMs)
  if (answer) return resultOf(answer)
  throw new CertvendError('ERR_TIMEOUT', 'the agent did not answer', {
    hint: 'certvend status says how it is; ask again',
  })
}
