/** The version of this package, from its manifest. */
import { readFileSync, statSync } from 'node:fs'

const manifest = new URL('../package.json', import.meta.url)

export const version: string = JSON.parse(readFileSync(manifest, 'utf8')).version

/** When this version came onto this machine. */
export const installedAt = (): Date => statSync(manifest).ctime
