#!/usr/bin/env node
import { text } from 'node:stream/consumers'
import { runCli } from './cli.ts'
import { systemClock } from './clock.ts'

const ending = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => ending.abort())
process.stdout.once('error', () => ending.abort()) // whoever read our output is gone
process.exitCode = await runCli(process.argv.slice(2), {
  out: (line) => void process.stdout.write(line),
  err: (line) => void process.stderr.write(line),
  env: process.env,
  clock: systemClock,
  signal: ending.signal,
  readInput: () => text(process.stdin),
})
