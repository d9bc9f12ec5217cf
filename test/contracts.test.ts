/** The old vending machines keep their contract, as handlers and behind real TLS. */
import { afterAll, describe } from 'vitest'
import { oldDialects } from './contracts/machines.ts'
import { behindTls, withoutNetwork } from './contracts/reference.ts'
import { contract } from './contracts/suite.ts'

const open: (() => Promise<void>)[] = []
afterAll(async () => {
  await Promise.all(open.map((close) => close()))
})

describe.each([withoutNetwork, behindTls((close) => open.push(close))])(
  'the contract with $name',
  (implementation) => {
    for (const dialect of oldDialects) contract(implementation, dialect)
  },
)
