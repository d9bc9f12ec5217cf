/**
 * What a cold start costs: `npm run bench:lambda`, after it bundled the functions. Each start is a process of
 * its own; nothing is asked of AWS. Lambda adds what it takes to make an environment.
 *
 * Figures are medians, with the fastest beside them: `load` until the function can be called, `first` the
 * first answer (one that needs no registry), `cpu` processor time of both, `memory` resident at the end.
 */
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../../..')
const { values } = parseArgs({ options: { starts: { type: 'string', default: '20' } } })

const first = {
  vend: {
    rawPath: '/v1/cacerts',
    headers: {},
    requestContext: { http: { method: 'GET', sourceIp: '192.0.2.1' } },
  },
  confirm: { eventType: 'disconnected' },
}

function start(name) {
  const file = pathToFileURL(path.join(root, 'dist/lambda', `${name}.mjs`)).href
  const program = `
    process.stdout.write = () => true
    const began = performance.now()
    const { handler } = await import(${JSON.stringify(file)})
    const loaded = performance.now()
    await handler(${JSON.stringify(first[name])})
    const answered = performance.now()
    const { user, system } = process.cpuUsage()
    console.error(JSON.stringify({
      load: loaded - began, first: answered - loaded, cpu: (user + system) / 1000,
      memory: process.memoryUsage().rss / 1048576,
    }))
    process.exit(0)`
  const { stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', program], {
    encoding: 'utf8',
    env: {
      PATH: process.env.PATH,
      NODE_NO_WARNINGS: '1',
      AWS_REGION: 'eu-west-1',
      CERTVEND_DEVICE_TABLE: 'devices',
      CERTVEND_LEDGER_TABLE: 'ledger',
      CERTVEND_POLICY: 'device-policy',
      CERTVEND_MQTT_HOST: 'mqtt.example',
    },
  })
  return JSON.parse(stderr)
}

const say = (line) => process.stdout.write(`${line}\n`)
const figure = (numbers) => {
  const sorted = numbers.toSorted((one, other) => one - other)
  return `${sorted[sorted.length >> 1].toFixed(0)} (${sorted[0].toFixed(0)})`
}
say(`Node ${process.version}, ${values.starts} starts each: median (fastest)`)
say('')
say('| function | load, ms | first answer, ms | processor, ms | memory, MB |')
say('| --- | --- | --- | --- | --- |')
for (const name of Object.keys(first)) {
  const starts = Array.from({ length: Number(values.starts) }, () => start(name))
  const of = (what) => figure(starts.map((each) => each[what]))
  say(`| ${name} | ${of('load')} | ${of('first')} | ${of('cpu')} | ${of('memory')} |`)
}
