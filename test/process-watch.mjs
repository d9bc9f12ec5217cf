/**
 * Looks at the command line and the environment of every process, over and over, for a secret that it
 * is told on standard input. Ends with standard input's second line; prints what it saw as JSON.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'

const lines = createInterface({ input: process.stdin })
const read = (file) => {
  try {
    return readFileSync(file, 'latin1')
  } catch {
    return '' // gone, or not ours
  }
}
/** Of a process, the number of the one that started it (proc_pid_stat(5)). */
const parentOf = (pid) => Number(read(`/proc/${pid}/stat`).split(') ').at(-1)?.split(' ')[1])
const seen = new Set()
const hits = new Set()
let secret
let rounds = 0

function look() {
  round()
  setImmediate(look)
}

function round() {
  rounds++
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    const line = read(`/proc/${pid}/cmdline`)
    if (/^openssl/.test(line) && parentOf(pid) === process.ppid) seen.add(pid)
    if (line.includes(secret)) hits.add(line.replaceAll('\0', ' '))
    if (read(`/proc/${pid}/environ`).includes(secret)) hits.add(`environment of ${line}`)
  }
}

lines.on('line', (line) => {
  if (secret === undefined) {
    secret = line
    look()
    console.log('looking')
    return
  }
  round() // whoever runs by now is seen
  console.log(JSON.stringify({ rounds, openssl: seen.size, hits: [...hits] }))
  process.exit()
})
