/** A part of `npm run prove -- --reality`, small enough for every run of the suite. */
import fs from 'node:fs'
import { afterAll, beforeAll, expect, type TestContext, test } from 'vitest'
import { compareTraces } from './comparison.ts'
import { sweepErrors, sweepFullDisks, sweepPowerCuts } from './cuts.ts'
import { fatMissing, sweepFat, sweepLinkless } from './fat.ts'
import { type Sweep, sweepFaults, sweepKills } from './kills.ts'
import { realScenarios } from './scenarios.ts'
import { type SystemCall, straceMissing } from './tracing.ts'
import { volumeMissing } from './volumes.ts'
import { makeWorkspace } from './whole.ts'

let workspace: string

beforeAll(() => {
  workspace = makeWorkspace()
})
afterAll(() => fs.rmSync(workspace, { recursive: true }))

const minutes = 60_000

async function passes(sweep: Promise<Sweep>): Promise<void> {
  const { tried, failures } = await sweep
  expect(failures).toEqual([])
  expect(tried).toBeGreaterThan(0)
}

function unless(reason: string | undefined, { skip }: TestContext): void {
  if (reason !== undefined) skip(reason)
}

const scenario = (name: string) => {
  const found = realScenarios.find((one) => one.name === name)
  if (!found) throw new Error(`there is no scenario ${name}`)
  return found
}

for (const { name } of realScenarios)
  test(`strace sees of a process in ${name} what the recorder records`, {
    timeout: minutes,
  }, async (context) => {
    unless(straceMissing(), context)
    await passes(compareTraces(scenario(name), workspace))
  })

const decisive = ({ name }: SystemCall): boolean => /^(rename|fsync)$/.test(name)

test('a process killed at a rename or a sync of a renewal leaves the old credential or the new', {
  timeout: 4 * minutes,
}, async (context) => {
  unless(straceMissing(), context)
  await passes(sweepKills(scenario('renewal'), workspace, decisive))
})

test('a rename that fails in a renewal is told, and the next attempt succeeds', {
  timeout: 4 * minutes,
}, async (context) => {
  unless(straceMissing(), context)
  await passes(sweepFaults(scenario('renewal'), workspace, ({ name }) => name === 'rename'))
})

test('any operation may fail: it is told, nothing is lost, the next attempt succeeds', {
  timeout: 4 * minutes,
}, async () => {
  await passes(sweepErrors(workspace, ['ENOSPC']))
})

test('a disk may be full at any step: it is told, nothing is lost, with room it goes on', {
  timeout: 4 * minutes,
}, async (context) => {
  unless(volumeMissing('tmpfs', workspace), context)
  await passes(sweepFullDisks('tmpfs inodes', workspace))
})

test('a real power cut on ext4 leaves what was before the call or what is after it', {
  timeout: 4 * minutes,
}, async (context) => {
  unless(volumeMissing('ext4', workspace), context)
  await passes(sweepPowerCuts('ext4', workspace))
})

test('a file system without symbolic links is refused in clear words', async () => {
  await passes(sweepLinkless(workspace))
})

test('FAT is refused in clear words', async (context) => {
  unless(await fatMissing(workspace), context)
  await passes(sweepFat(workspace))
})
