/**
 * Tools that others write in Python, for what needs them: each in a virtual environment of its own in
 * the user's cache folder, outside the tree, installed by pip, by name and version, on first use.
 */
import { spawn, spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'

const cache = path.join(
  process.env.XDG_CACHE_HOME || path.join(os.homedir(), '.cache'),
  'certvend',
  'python',
)

/** What may be asked for: the package as pip knows it, and the program that it brings. */
const tools = {
  /** Imitates AWS: API Gateway, Lambda, DynamoDB, CloudFormation, IoT with a broker. About 215 MB. */
  ministack: { requirement: 'ministack[full]==1.5.33', program: 'ministack' },
  /** Imitates IoT's and DynamoDB's control planes. About 250 MB. */
  moto: { requirement: 'moto[server,iot,dynamodb]==5.2.5', program: 'moto_server' },
  /** AWS's own command line. About 160 MB. */
  aws: { requirement: 'awscli==1.46.2', program: 'aws' },
  /** Judges CloudFormation templates by AWS's own schemas. About 90 MB. */
  'cfn-lint': { requirement: 'cfn-lint==1.58.0', program: 'cfn-lint' },
}

/**
 * Where a tool's program is, installed if need be.
 *
 * @returns {Promise<{ program: string } | { missing: string, advice: string }>}
 */
export async function pythonTool(name) {
  const { requirement, program } = tools[name]
  const home = path.join(cache, requirement.replace(/[^\w.-]+/g, '-'))
  const found = { program: path.join(home, 'bin', program) }
  const whole = path.join(home, 'installed') // written last: what was cut off is made again
  if (fs.existsSync(whole)) return found
  const python = ['python3', 'python'].find((each) => spawnSync(each, ['--version']).status === 0)
  if (!python)
    return {
      missing: 'Python is not installed',
      advice: 'on Debian: apt-get install python3 python3-venv',
    }
  console.error(`First run here: installing ${requirement} into ${home}, about half a minute.`)
  fs.rmSync(home, { recursive: true, force: true })
  fs.mkdirSync(cache, { recursive: true })
  const made = await run(python, ['-m', 'venv', home])
  if (made.code !== 0)
    return {
      missing: 'Python makes no virtual environment',
      advice: 'on Debian: apt-get install python3-venv',
    }
  const pip = await run(path.join(home, 'bin', 'pip'), ['install', '-q', requirement])
  if (pip.code !== 0)
    return {
      missing: `pip could not install ${requirement} (${pip.err.trim().split('\n').at(-1)})`,
      advice: 'it needs PyPI, or a mirror of it',
    }
  fs.writeFileSync(whole, '')
  return found
}

/** Runs to the end, within five minutes. */
function run(program, args) {
  const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'], timeout: 300_000 })
  let err = ''
  child.stderr.setEncoding('utf8').on('data', (text) => {
    err += text
  })
  return new Promise((resolve) => {
    child.once('error', (error) => resolve({ code: -1, err: error.message }))
    child.once('close', (code) => resolve({ code, err }))
  })
}
