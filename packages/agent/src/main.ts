#!/usr/bin/env node
import { main } from './cli.ts'

for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {}) // a reader that left
process.exit(await main(process.argv.slice(2)))
