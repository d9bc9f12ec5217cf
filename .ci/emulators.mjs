/** What imitates AWS, started as processes of ours on loopback, each with a log and an end. */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

/** Nobody's credentials: the SDKs insist on some, the emulators do not look. */
export const credentials = {
  AWS_ACCESS_KEY_ID: 'test',
  AWS_SECRET_ACCESS_KEY: 'test',
  AWS_REGION: 'eu-west-1',
}

/**
 * MiniStack; in the answer also `mqttPort`, where its mutual-TLS broker listens. With `enforceIam` every
 * call's signature and the policies of who makes it are judged, also those of a function's role.
 */
export async function startMinistack(
  program,
  work,
  { name = 'ministack', enforceIam = false } = {},
) {
  const [port, mqttPort] = [await freePort(), await freePort()]
  const url = `http://127.0.0.1:${port}`
  const started = await start(name, program, [], {
    work,
    url,
    env: {
      GATEWAY_PORT: String(port),
      IOT_MTLS_PORT: String(mqttPort),
      BIND_HOST: '127.0.0.1',
      LOG_LEVEL: 'WARNING',
      AUTH: String(enforceIam),
      AWS_DEFAULT_REGION: credentials.AWS_REGION,
      ...credentials,
    },
    async ready() {
      const said = await fetch(`${url}/_ministack/ready`)
      return (await said.json()).iot_mtls === 'listening'
    },
  })
  return { ...started, mqttPort }
}

/**
 * moto. It answers each request in a thread of its own and takes no lock between a write's condition and
 * the write, so that a bare conditional UpdateItem can have two winners, which DynamoDB never has. Its
 * threads therefore change only where one waits (input and output), never in the middle of a write.
 */
export async function startMoto(program, work) {
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const python = path.join(path.dirname(program), 'python')
  const main =
    'import sys; sys.setswitchinterval(60); from moto.server import main; main(sys.argv[1:])'
  return start('moto', python, ['-c', main, '-H', '127.0.0.1', '-p', String(port)], {
    work,
    url,
    env: {},
    ready: async () => (await fetch(`${url}/moto-api/`)).ok,
  })
}

async function start(name, program, args, { work, url, env, ready }) {
  const home = path.join(work, name)
  fs.mkdirSync(home)
  // MiniStack runs functions below here, by scripts in CommonJS, whatever a package.json above says.
  fs.writeFileSync(path.join(home, 'package.json'), '{"type":"commonjs"}\n')
  const file = path.join(home, 'log')
  const log = fs.openSync(file, 'w')
  const child = spawn(program, args, {
    cwd: home,
    stdio: ['ignore', log, log],
    env: { PATH: process.env.PATH, HOME: home, TMPDIR: home, ...env },
  })
  fs.closeSync(log)
  const gone = new Promise((resolve) => child.once('exit', resolve))
  const stop = () => {
    child.kill()
    return gone
  }
  const deadline = Date.now() + 60_000
  for (;;) {
    if (await ready().catch(() => false)) return { url, stop, log: file }
    if (Date.now() > deadline || child.exitCode !== null) {
      await stop()
      throw new Error(`${name} did not start:\n${fs.readFileSync(file, 'utf8')}`)
    }
    await pause(200)
  }
}

async function freePort() {
  const server = net.createServer()
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address()
  await new Promise((resolve) => server.close(resolve))
  return port
}
