/** The deadline of the next exchange or session, which a test ends itself. */
import { onTestFinished, vi } from 'vitest'

/** It passes when the returned function is called, however long the machine took until then. */
export function ownDeadline(): () => void {
  const over = new AbortController()
  const timeout = vi.spyOn(AbortSignal, 'timeout').mockReturnValueOnce(over.signal)
  onTestFinished(() => timeout.mockRestore())
  return () => over.abort(new DOMException('The deadline passed', 'TimeoutError'))
}
