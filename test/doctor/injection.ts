/** How a fault is put in. */
import type { LabOptions } from '@certvend/server/lab'
import type { Scene } from './scene.ts'

export interface Injection {
  /** How far the device has come before: default, whatever the other one of a pair wants. */
  readonly after?: 'nothing' | 'enrolled' | 'online'
  /** What the lab must be for it. */
  readonly lab?: LabOptions
  /** Before the device has done anything. */
  readonly prepare?: (scene: Scene) => Promise<void> | void
  readonly inject: (scene: Scene) => Promise<void> | void
}
