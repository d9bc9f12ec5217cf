/** The function behind API Gateway: the vending machine. */
import { createLambda, notOpen } from '../lambda.ts'
import { functionLog, openParts } from './parts.ts'
import { start } from './start.ts'
import { openVending } from './vending.ts'

export const handler = await start(
  () => openVending(openParts()),
  functionLog,
  createLambda(notOpen, { paths: [] }),
)
