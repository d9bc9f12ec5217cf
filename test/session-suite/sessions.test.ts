/** The session suite against the brokers that run on any machine; `test/aws/` has the third. */
import { brokers } from './brokers.ts'
import { sessionsAgainst } from './sentences.ts'

for (const broker of brokers) sessionsAgainst(broker)
