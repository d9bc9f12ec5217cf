/** The parts of the proof that hurt real processes and real disks, each where the machine allows it. */

import { compareTraces } from './comparison.ts'
import { sweepErrors, sweepFullDisks, sweepPowerCuts } from './cuts.ts'
import { fatMissing, sweepFat, sweepLinkless } from './fat.ts'
import { type Sweep, sweepFaults, sweepKills } from './kills.ts'
import { realScenarios } from './scenarios.ts'
import { straceMissing } from './tracing.ts'
import { volumeMissing } from './volumes.ts'

export interface Part {
  readonly name: string
  readonly run: (workspace: string) => Promise<Sweep>
  /** Why it cannot run here, if it cannot. */
  readonly missing?: (workspace: string) => string | undefined | Promise<string | undefined>
}

/** A sweep that must find something: without syncs a power cut loses what was reported. */
async function control(kind: string, workspace: string): Promise<Sweep> {
  const { name, tried, failures } = await sweepPowerCuts(kind, workspace, { syncs: false })
  return {
    name: `${name}, syncs left out`,
    tried,
    failures: failures.length > 0 ? [] : ['nothing was lost: these were no power cuts'],
    detail: `${failures.length} lost what was reported, as they must`,
  }
}

const volume = (kind: string) => (workspace: string) => volumeMissing(kind, workspace)

export const parts: readonly Part[] = [
  ...realScenarios.map((scenario) => ({
    name: `recorded and traced, ${scenario.name}`,
    run: (workspace: string) => compareTraces(scenario, workspace),
    missing: straceMissing,
  })),
  ...realScenarios.map((scenario) => ({
    name: `kill -9, ${scenario.name}`,
    run: (workspace: string) => sweepKills(scenario, workspace),
    missing: straceMissing,
  })),
  ...realScenarios.map((scenario) => ({
    name: `failing calls, ${scenario.name}`,
    run: (workspace: string) => sweepFaults(scenario, workspace),
    missing: straceMissing,
  })),
  { name: 'errors at every operation', run: (workspace) => sweepErrors(workspace) },
  ...(['tmpfs size', 'tmpfs inodes', 'ext4 blocks'] as const).map((kind) => ({
    name: `full disk, ${kind}`,
    run: (workspace: string) => sweepFullDisks(kind, workspace),
    missing: volume(kind.split(' ')[0] ?? ''),
  })),
  {
    name: 'power cuts, ext4',
    run: (workspace) => sweepPowerCuts('ext4', workspace),
    missing: volume('ext4'),
  },
  {
    name: 'power cuts, ext4 data=writeback',
    run: (workspace) => sweepPowerCuts('ext4', workspace, { options: 'data=writeback' }),
    missing: volume('ext4'),
  },
  {
    name: 'power cuts, xfs',
    run: (workspace) => sweepPowerCuts('xfs', workspace),
    missing: volume('xfs'),
  },
  {
    name: 'power cuts, ext4, syncs left out',
    run: (workspace) => control('ext4', workspace),
    missing: volume('ext4'),
  },
  {
    name: 'power cuts, xfs, syncs left out',
    run: (workspace) => control('xfs', workspace),
    missing: volume('xfs'),
  },
  { name: 'no symbolic links', run: sweepLinkless },
  { name: 'FAT by FUSE', run: sweepFat, missing: fatMissing },
]
