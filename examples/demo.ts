/**
 * The main job, whole, on one machine: a vending machine, a broker, a gateway that boots three times.
 *
 * The gateway is the real `certvend` command in its own process. The first boot enrolls, the second
 * (after SIGKILL) asks nobody, and a third gateway refuses a vending machine that is not the pinned one.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { styleText } from 'node:util'
import {
  connect,
  createClaim,
  createVendingServer,
  ensureCredential,
  openCredentialStore,
} from '@certvend/client'
import { startLab } from '@certvend/server/lab'

const started = performance.now()
const home = mkdtempSync(path.join(tmpdir(), 'certvend-demo-'))
const at = (name: string): string => path.join(home, name)
const certvend = fileURLToPath(new URL('./main.js', import.meta.resolve('@certvend/agent')))
const colour = process.stdout.isTTY
const children = new Set<ChildProcess>()

function say(who: 'lab' | 'gateway' | 'listener' | '', words: string): void {
  const seconds = ((performance.now() - started) / 1000).toFixed(2).padStart(6)
  const name = who.padEnd(9)
  process.stdout.write(`${seconds} s  ${colour ? styleText('cyan', name) : name} ${words}\n`)
}

function chapter(title: string): void {
  process.stdout.write(`\n${colour ? styleText('bold', title) : title}\n`)
}

interface LogLine {
  readonly event: string
  readonly [field: string]: unknown
}

/** What the agent's log says, in a few words; nothing for what is not worth a line here. */
function inWords(line: LogLine): string | undefined {
  switch (line.event) {
    case 'credential.found':
      return `finds its credential on disk: ${line.thingName}`
    case 'enroll.key':
      return 'makes its private key and stores it durably, before anything is sent'
    case 'enroll.request':
      return `sends serial, one-time token and certification request to ${line.host}`
    case 'enroll.done':
      return `holds its certificate: ${String(line.certificateId).slice(0, 16)}…`
    case 'session.open':
      return `is online: MQTT with mutual TLS at ${line.host}:${line.port}`
    case 'publish.acknowledged':
      return `published to ${line.topic}, and the broker acknowledged`
    default:
      return undefined
  }
}

/** Runs the command; tells the story of its log until `until`, or until it ends. */
async function boot(
  args: readonly string[],
  until?: string,
): Promise<{ child: ChildProcess; exitCode: number | null; errors: string }> {
  const child = spawn(process.execPath, [certvend, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  children.add(child)
  let errors = ''
  child.stderr.on('data', (chunk) => {
    errors += chunk
  })
  const exited = new Promise<number | null>((resolve) => child.once('close', resolve))
  for await (const text of createInterface({ input: child.stdout })) {
    const line = JSON.parse(text) as LogLine
    const words = inWords(line)
    if (words) say('gateway', words)
    if (line.event === until) return { child, exitCode: null, errors }
  }
  children.delete(child)
  return { child, exitCode: await exited, errors }
}

async function kill(child: ChildProcess): Promise<void> {
  const gone = new Promise((resolve) => child.once('close', resolve))
  child.kill('SIGKILL')
  await gone
  children.delete(child)
}

function expectation(holds: boolean, what: string): void {
  if (!holds) throw new Error(`this was not to happen: ${what}`)
}

const lab = await startLab()
try {
  chapter('A vending machine, a broker, and a listener')
  say('lab', `vending machine at ${lab.vendingUrl}`)
  say('lab', `broker at ${lab.mqtt.host}:${lab.mqtt.port}, for ACTIVE certificates only`)

  const listenerStore = await openCredentialStore(at('listener'))
  const server = createVendingServer({ url: lab.vendingUrl, pins: lab.pins })
  const listener = await connect(
    await ensureCredential(listenerStore, server, createClaim(await lab.addDevice('listener'))),
  )
  const arrived: Promise<string>[] = []
  const messages = (await listener.subscribe('certvend/+/status'))[Symbol.asyncIterator]()
  const hear = async (): Promise<string> => {
    const { value } = await messages.next()
    const words = value ? `${value.topic}  ${Buffer.from(value.payload)}` : ''
    say('listener', `hears ${words}`)
    return words
  }
  say('listener', 'has a credential of its own and listens')

  const { deviceSerial, token } = await lab.addDevice('gateway-0001')
  writeFileSync(at('pin.pem'), lab.pins)
  writeFileSync(at('token'), token, { mode: 0o600 })
  const flags = (url: string, state: string): string[] => [
    ...['--server', url, '--pin', at('pin.pem'), '--serial', deviceSerial],
    ...['--token-file', at('token'), '--state-dir', at(state)],
  ]

  chapter('First boot: a serial, a token, no certificate')
  arrived.push(hear())
  const first = await boot(['run', ...flags(lab.vendingUrl, 'gateway')], 'publish.acknowledged')
  expectation(first.exitCode === null, `the agent ended: ${first.errors}`)
  await arrived[0]

  chapter('SIGKILL, and the second boot')
  const asked = lab.requests.length
  await kill(first.child)
  say('', 'the agent was killed without a warning')
  const second = await boot(['run', '--state-dir', at('gateway')], 'publish.acknowledged')
  expectation(second.exitCode === null, `the agent ended: ${second.errors}`)
  while (!(await hear()).includes('"online":true'));
  expectation(lab.requests.length === asked, 'the second boot asked the vending machine')
  say('lab', 'the vending machine was asked 0 times')
  await kill(second.child)

  chapter('Another gateway, and a vending machine under the sibling of the pinned CA')
  const sibling = await lab.serveUnderSibling()
  const third = await boot(['enroll', ...flags(sibling.vendingUrl, 'other')])
  expectation(third.exitCode !== 0, 'the sibling was trusted')
  for (const line of third.errors.trim().split('\n')) say('gateway', line)
  expectation(/no pin vouches/.test(third.errors), `another error: ${third.errors}`)
  say('gateway', `refused with exit code ${third.exitCode}; the token was not sent`)
  expectation(lab.requests.length === asked, 'the token was sent')

  await listener.close()
  listenerStore.close()
  const seconds = ((performance.now() - started) / 1000).toFixed(1)
  process.stdout.write(`\nDone in ${seconds} s. Next: README.md, "Use on a gateway".\n`)
} catch (error) {
  process.exitCode = 1
  process.stderr.write(`\ndemo: ${error instanceof Error ? error.message : error}\n`)
} finally {
  for (const child of children) await kill(child)
  await lab.close()
  rmSync(home, { recursive: true })
}
