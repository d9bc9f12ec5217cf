/**
 * A process with a store, to be traced, killed and given faults: `node life.js ROOT SERIAL STEP...`.
 *
 * One line of JSON on standard output tells each call before it is made and after it returned. A call
 * that failed is told with its error; then the disk is copied aside and the call made once more.
 */
import crypto from 'node:crypto'
import fs from 'node:fs'
import { syncBuiltinESMExports } from 'node:module'
import path from 'node:path'
import { type CredentialStore, isCertvendError, openCredentialStore } from '@certvend/client'
import { createCast, stateDirectory } from './judgement.ts'
import { type Line, markers } from './lines.ts'
import { type StepName, steps } from './scenarios.ts'
import { captureTree, materialise } from './tree.ts'

const say = (line: Line): void => void fs.writeSync(1, `${JSON.stringify(line)}\n`)
const mark = (name: string): void => void fs.existsSync(name)

function publicKeys(store: CredentialStore): string[] {
  const pending = store.pending()
  const keys = [
    store.current()?.privateKey,
    pending?.state === 'requested' ? pending.privateKey : pending?.credential.privateKey,
  ]
  return keys.flatMap((key) =>
    key ? [key.publicKey.export({ type: 'spki', format: 'pem' }).toString()] : [],
  )
}

function failed(step: StepName | 'open', error: unknown): void {
  const known = isCertvendError(error)
  say({
    at: 'failed',
    step,
    code: known ? error.code : String((error as NodeJS.ErrnoException).code ?? error),
    hint: known ? error.hint : '',
    message: String((error as Error).message),
  })
}

async function open(root: string): Promise<CredentialStore> {
  const directory = path.join(root, stateDirectory)
  try {
    return await openCredentialStore(directory)
  } catch (error) {
    failed('open', error)
    return await openCredentialStore(directory)
  }
}

// Names of unfinished things are random; here they are counted, so that a trace names them beforehand.
let names = 0
Object.assign(crypto, {
  randomBytes(size: number) {
    const bytes = Buffer.alloc(size)
    bytes.writeUInt32BE(++names, size - 4)
    return bytes
  },
})
syncBuiltinESMExports()

const [root, serial, ...stepNames] = process.argv.slice(2) as [string, string, ...StepName[]]
const cast = createCast(Number(serial))
mark(markers.begin)
const store = await open(root)
say({ at: 'opened' })
let number = Number(serial)
for (const step of stepNames) {
  number++
  say({ at: 'calling', step })
  const before = cast.describe(store)
  try {
    steps[step](store, cast, number)
  } catch (error) {
    failed(step, error)
    fs.mkdirSync(`${root}-failed`)
    materialise(captureTree(root), `${root}-failed`)
    if (cast.describe(store) === before || step === 'begin') steps[step](store, cast, number)
  }
  say({ at: 'returned', step, publicKeys: publicKeys(store) })
}
store.close()
mark(markers.end)
const files = fs.readdirSync('/proc/self/fd').map((one) => {
  try {
    return fs.readlinkSync(`/proc/self/fd/${one}`)
  } catch {
    return '' // the listing's own
  }
})
say({ at: 'closed', open: files.filter((one) => one.startsWith(`${root}/`)) })
