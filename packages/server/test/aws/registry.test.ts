/** The conformance suite again, against two other readings of DynamoDB (`npm run test:aws`). */
import { homeAt } from '../dynamodb.ts'
import { describeRegistry } from '../registry-suite/suite.ts'

for (const [name, url] of [
  ['moto', process.env.MOTO_URL],
  ['MiniStack', process.env.MINISTACK_URL],
] as const)
  describeRegistry(`DynamoDB as ${name} has it`, async () => homeAt(url!), {
    skip: url ? undefined : 'npm run test:aws',
  })
