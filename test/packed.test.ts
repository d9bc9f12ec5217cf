/**
 * The three packages as a stranger meets them: packed, installed by npm in an empty directory,
 * compiled against, run. Nothing here sees the workspace but the example it copies.
 */
import { execFile, spawn } from 'node:child_process'
import fs from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { strangersEnvironment as environment, installPacked } from './packed.ts'

const run = promisify(execFile)
const root = path.resolve(import.meta.dirname, '..')
const { devDependencies } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'))
const names = ['client', 'agent', 'server'] as const

const stranger = fs.mkdtempSync(path.join(fs.realpathSync(tmpdir()), 'certvend-packed-'))
const inside = (...parts: string[]): string => path.join(stranger, ...parts)
let unreachable: string | undefined

beforeAll(async () => {
  unreachable = await installPacked(stranger, names, [
    `typescript@${devDependencies.typescript}`,
    `@types/node@${devDependencies['@types/node']}`,
  ])
}, 240_000)

afterAll(() => fs.rmSync(stranger, { recursive: true, force: true }))

describe('the packed packages', () => {
  test.each(names)('@certvend/%s holds what is built, and nothing else', async (name) => {
    const { stdout } = await run('tar', ['tzf', inside(`${name}.tgz`)])
    const files = stdout.trim().split('\n')
    expect(files).toContain('package/dist/index.js')
    expect(files).toContain('package/dist/index.d.ts')
    expect(files).toContain('package/LICENSE')
    const expected =
      /^package\/(package\.json|LICENSE|README\.md|packaging\/.*|dist\/.*\.(js|d\.ts))$/
    expect(files.filter((file) => !expected.test(file))).toEqual([])
  })

  test.each(names)(
    '@certvend/%s depends on released versions, not on a workspace',
    async (name) => {
      const { stdout } = await run('tar', ['xzOf', inside(`${name}.tgz`), 'package/package.json'])
      expect(stdout).not.toContain('workspace:')
      expect(stdout).not.toMatch(/"(link|file):/)
    },
  )

  test('both commands answer for themselves', async (context) => {
    context.skip(unreachable !== undefined, unreachable)
    for (const command of ['certvend', 'certvend-server']) {
      const { stdout } = await run(inside('node_modules', '.bin', command), ['--help'], {
        env: environment,
      })
      expect(stdout).toContain(command)
    }
  })

  test('firmware is compiled against them, enrolls on its first boot and not on its second', async (context) => {
    context.skip(unreachable !== undefined, unreachable)
    await compile('firmware.ts')
    const lab = await startLab()
    let seen: Awaited<ReturnType<typeof lab.end>> | undefined
    try {
      fs.writeFileSync(inside('pins.pem'), lab.pins)
      fs.writeFileSync(inside('token'), lab.token, { mode: 0o600 })
      const boot = () =>
        run(process.execPath, [inside('firmware.js')], {
          cwd: stranger,
          env: {
            ...environment,
            CERTVEND_URL: lab.vendingUrl,
            CERTVEND_PINS: inside('pins.pem'),
            CERTVEND_SERIAL: lab.deviceSerial,
            CERTVEND_TOKEN_FILE: inside('token'),
            STATE_DIRECTORY: inside('state'),
            READINGS: '1',
          },
        })
      expect((await boot()).stdout).toBe(
        `enrolled as ${lab.deviceSerial}\nreading 1 acknowledged\n`,
      )
      expect((await boot()).stdout).toBe(`known as ${lab.deviceSerial}\nreading 1 acknowledged\n`)
    } finally {
      seen = await lab.end()
    }
    expect(seen).toEqual({ requests: ['POST /v1/enroll 200'], received: 2 })
  })
})

/** Compiles one of the examples, copied here, with the strictest settings that npm's world allows. */
async function compile(example: string): Promise<void> {
  fs.copyFileSync(path.join(root, 'examples', example), inside(example))
  const settings = ['--strict', '--exactOptionalPropertyTypes', '--noUncheckedIndexedAccess']
  const modules = ['--module', 'NodeNext', '--target', 'ES2023', '--types', 'node']
  // The typings of mqtt's own dependencies want the browser's.
  const tsc = inside('node_modules', '.bin', 'tsc')
  await run(tsc, [...settings, ...modules, '--skipLibCheck', example], {
    cwd: stranger,
    env: environment,
  }).catch((error: Error & { stdout?: string }) => {
    throw new Error(`${example} does not compile:\n${error.stdout}`)
  })
}

interface LabHere {
  readonly vendingUrl: string
  readonly pins: string
  readonly deviceSerial: string
  readonly token: string
  end(): Promise<{ requests: string[]; received: number }>
}

/** A lab from the installed package, in a process of its own; ends when its input does. */
async function startLab(): Promise<LabHere> {
  fs.writeFileSync(
    inside('lab.js'),
    `import { startLab } from '@certvend/server/lab'
     const lab = await startLab()
     const { vendingUrl, pins } = lab
     console.log(JSON.stringify({ vendingUrl, pins, ...(await lab.addDevice()) }))
     process.stdin.resume().on('end', async () => {
       const requests = lab.requests.map(({ method, path, status }) => [method, path, status].join(' '))
       console.log(JSON.stringify({ requests, received: lab.mqtt.received.length }))
       await lab.close()
     })`,
  )
  const child = spawn(process.execPath, [inside('lab.js')], {
    cwd: stranger,
    env: environment,
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async () => JSON.parse((await lines.next()).value ?? 'null')
  const exited = new Promise((resolve) => child.once('exit', resolve))
  return {
    ...(await next()),
    async end() {
      child.stdin.end()
      const seen = await next()
      await exited
      return seen
    },
  }
}
