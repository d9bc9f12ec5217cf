import { homeAt, startDynalite } from './dynamodb.ts'
import { describeRegistry } from './registry-suite/suite.ts'

describeRegistry('DynamoDB', async () => {
  const { endpoint, stop } = await startDynalite()
  return homeAt(endpoint, stop)
})
