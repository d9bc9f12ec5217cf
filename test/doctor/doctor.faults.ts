/** `npm run test:doctor`: every fault, every pair, every healthy set-up, by the real command. */
import fs from 'node:fs'
import { describe, expect, it } from 'vitest'
import { contents } from '../temporary.ts'
import { doubles, type FaultName, faults, type HealthyName, healthy } from './faults.ts'
import { setUps } from './healthy.ts'
import type { Injection } from './injection.ts'
import { injections } from './injections.ts'
import { type Diagnosed, makeScene, missing, type Scene } from './scene.ts'

declare module 'vitest' {
  interface TaskMeta {
    /** For the table in docs/troubleshooting.md. */
    diagnosed?: {
      readonly name: string
      readonly cause: string | undefined
      readonly found: readonly string[]
      readonly tookMs: number
    }
  }
}

const skipping = missing ? ` (skipped: ${missing})` : ''

async function sceneFor(...names: readonly FaultName[]): Promise<Scene> {
  const all: Injection[] = names.map((name) => injections[name])
  const scene = await makeScene(Object.assign({}, ...all.map(({ lab }) => lab ?? {})))
  for (const { prepare } of all) await prepare?.(scene)
  const after = all.map((one) => one.after).filter(Boolean)
  if (after.includes('enrolled')) await scene.enroll()
  for (const { inject } of all) await inject(scene)
  return scene
}

const contentsOf = (directory: string): string[] =>
  contents(directory)
    .map((name) => `${directory}/${name}`)
    .map((file) => (fs.lstatSync(file).isFile() ? `${file} ${fs.readFileSync(file)}` : file))

/** What no fault may make it do. */
function holdsAlways(scene: Scene, { said, tookMs, code }: Diagnosed, requests: number): void {
  expect([0, 1, 2, 3]).toContain(code)
  expect(tookMs).toBeLessThan(35_000)
  expect(said).not.toContain(scene.token)
  expect(said).not.toContain('canary-of-proxy')
  expect(said).not.toMatch(/PRIVATE KEY-----/)
  // Nothing was asked for that could be granted.
  const asked = scene.lab.requests.slice(requests).filter(({ path }) => /enroll$/.test(path))
  expect(asked).toEqual([])
}

async function examined(scene: Scene): Promise<Diagnosed> {
  const requests = scene.lab.requests.length
  const kept = scene.at('state/generations')
  const before = fs.existsSync(kept) ? contentsOf(kept) : undefined
  const diagnosed = await scene.doctor()
  holdsAlways(scene, diagnosed, requests)
  if (before) expect(contentsOf(kept)).toEqual(before)
  return diagnosed
}

describe.skipIf(missing)(`a fault${skipping}`, () => {
  it.for(Object.keys(faults) as FaultName[])('%s', async (name, { task }) => {
    const { cause, found, code, said, tookMs } = await examined(await sceneFor(name))
    task.meta.diagnosed = { name, cause, found, tookMs }
    expect(cause, `found ${found.join(', ')}\n${said}`).toBe(faults[name].expected)
    expect(code).not.toBe(0)
  })
})

describe.skipIf(missing)(`two faults${skipping}`, () => {
  it.for(doubles)('%s and %s', async ([one, other], { task }) => {
    const { cause, found, said, tookMs } = await examined(await sceneFor(one, other))
    task.meta.diagnosed = { name: `${one}, ${other}`, cause, found, tookMs }
    expect(found, said).toEqual(
      expect.arrayContaining([faults[one].expected, faults[other].expected]),
    )
  })
})

describe.skipIf(missing)(`a healthy set-up${skipping}`, () => {
  it.for(Object.keys(healthy) as HealthyName[])('%s', async (name, { task }) => {
    const { lab, make } = setUps[name]
    const scene = await makeScene(lab)
    await make(scene)
    const { cause, found, code, said, tookMs } = await examined(scene)
    task.meta.diagnosed = { name, cause, found, tookMs }
    expect(found, said).toEqual([])
    expect(code).toBe(0)
  })
})
