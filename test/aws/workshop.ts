/**
 * A desk from which somebody follows `docs/deploy-aws.md`: a shell with the commands that it uses, all
 * of them the real ones, and the AWS account that MiniStack imitates with IAM enforced.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'

const root = path.resolve(import.meta.dirname, '../..')

export const account: {
  readonly url: string | undefined
  readonly mqttPort: string | undefined
  readonly cli: string | undefined
} = {
  url: process.env.STRICT_MINISTACK_URL,
  mqttPort: process.env.STRICT_MINISTACK_MQTT_PORT,
  cli: process.env.AWS_CLI,
}

export interface Ran {
  readonly code: number
  readonly out: string
  readonly err: string
}

export interface Workshop {
  readonly directory: string
  /** Runs lines of a shell, with what earlier ones exported through `keep`. */
  sh(lines: string): Promise<Ran>
  /** The same, which must succeed. @returns standard output, without blanks around it */
  must(lines: string): Promise<string>
  /** Known to every later shell. */
  keep(lines: string): void
}

/** The blocks of shell below a heading of `docs/deploy-aws.md`, in their order. */
export function blocksOf(heading: string): readonly string[] {
  const text = fs.readFileSync(path.join(root, 'docs/deploy-aws.md'), 'utf8')
  const section = text
    .split(/^(?=##+ )/m)
    .find((each) => each.replace(/^#+ (\d+\. )?/, '').startsWith(heading))
  const blocks = [...(section ?? '').matchAll(/^ *```sh\n(.*?)^ *```/gms)].map(([, block]) => block)
  if (blocks.length === 0) throw new Error(`docs/deploy-aws.md says nothing below ${heading}`)
  return blocks as string[]
}

/** What stands for the commands of the page, by name. */
const commands = (anchors: string): Readonly<Record<string, string>> => ({
  // The build is there already; the bundle belongs to this desk.
  npm: `[ "$*" = "run package:lambda" ] && exec node ${root}/packages/server/packaging/lambda.mjs --out dist/lambda`,
  certvend: `exec node ${root}/packages/agent/dist/main.js "$@"`,
  'certvend-server': `exec node ${root}/packages/server/dist/main.js "$@"`,
  // Devices find MiniStack's broker on loopback, under a CA of MiniStack's.
  aws: `if [ "$1 $2" = "cloudformation deploy" ]; then
  case " $* " in *" --parameter-overrides "*) ;; *) set -- "$@" --parameter-overrides ;; esac
  set -- "$@" MqttHost=localhost MqttPort=${account.mqttPort} "MqttTrustAnchors=$(cat ${anchors})"
fi
exec ${account.cli} "$@"`,
})

export async function openWorkshop(directory: string): Promise<Workshop> {
  const bin = path.join(directory, 'bin')
  fs.mkdirSync(bin)
  fs.mkdirSync(path.join(directory, 'dist'))
  fs.symlinkSync(path.join(root, 'packages'), path.join(directory, 'packages'))
  const anchors = path.join(directory, 'mqtt-anchors.pem')
  fs.writeFileSync(anchors, await (await fetch(`${account.url}/_ministack/iot/ca.pem`)).text())
  for (const [name, script] of Object.entries(commands(anchors)))
    fs.writeFileSync(path.join(bin, name), `#!/bin/bash\n${script}\n`, { mode: 0o755 })
  const env = {
    PATH: `${bin}:${process.env.PATH}`,
    HOME: directory,
    LANG: 'C.UTF-8',
    NODE_NO_WARNINGS: '1',
    AWS_ENDPOINT_URL: account.url,
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    AWS_DEFAULT_REGION: 'eu-west-1',
    AWS_PAGER: '',
  }
  let kept = ''
  const sh: Workshop['sh'] = (lines) =>
    new Promise((resolve, reject) => {
      const child = spawn('bash', ['-c', `set -euo pipefail; umask 077\n${kept}\n${lines}`], {
        cwd: directory,
        env,
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: 240_000,
      })
      const said = { out: '', err: '' }
      child.stdout.setEncoding('utf8').on('data', (text) => {
        said.out += text
      })
      child.stderr.setEncoding('utf8').on('data', (text) => {
        said.err += text
      })
      child.once('error', reject)
      child.once('close', (code) => resolve({ code: code ?? -1, ...said }))
    })
  return {
    directory,
    sh,
    async must(lines) {
      const { code, out, err } = await sh(lines)
      if (code !== 0) throw new Error(`exit code ${code} from\n${lines}\n${out}\n${err}`)
      return out.trim()
    },
    keep: (lines) => {
      kept += `${lines}\n`
    },
  }
}
