/** Consumers: handed each new identity in order, asked whether they are well, given back the old one. */
import fs from 'node:fs'
import path from 'node:path'
import { openCredentialStore } from '@certvend/client'
import { expect, test } from 'vitest'
import { start } from './agent-process.ts'
import { obtain } from './stored-credential.ts'
import { contents, temporaryDirectory } from './temporary.ts'

interface Outcome {
  readonly code: number | null
  readonly results: Readonly<Record<string, string>>
  readonly reasons: Readonly<Record<string, string | undefined>>
  readonly stderr: string
}

/** A gateway: a store, a configuration, and `certvend consumers`. */
async function gateway() {
  const folder = temporaryDirectory()
  const at = (...names: readonly string[]): string => path.join(folder, ...names)
  const state = at('state')
  const environment = { STATE_DIRECTORY: at('mark'), RUNTIME_DIRECTORY: at('record') }
  const change = async (): Promise<string> => {
    const store = await openCredentialStore(state)
    const { certificateId, generation } = await obtain(store)
    if (generation > 1) store.promote()
    store.close()
    return certificateId
  }
  const first = await change()
  const command = (...argv: readonly string[]) =>
    start(['consumers', ...argv, '--config', at('agent.toml')], { cwd: folder, env: environment })
  return {
    at,
    change,
    first,
    command,
    /** Writes agent.toml; each line is a table of `[[consumers]]`. */
    configure(...consumers: readonly string[]): void {
      const tables = consumers.map((lines) => `[[consumers]]\n${lines}\n`)
      fs.writeFileSync(at('agent.toml'), `state_directory = "${state}"\n${tables.join('')}`)
    },
    async run(): Promise<Outcome> {
      const running = command('run', '--json')
      const { code } = await running.exited
      const { consumers = [] } = running.stdout ? JSON.parse(running.stdout) : {}
      const column = (name: string) =>
        Object.fromEntries(consumers.map((one: Record<string, string>) => [one.name, one[name]]))
      return { code, results: column('state'), reasons: column('reason'), stderr: running.stderr }
    },
    /** The certificate that a consumer would read now. */
    seen: (name: string): string =>
      JSON.parse(fs.readFileSync(at(name, 'current/certvend.json'), 'utf8')).certificateId,
  }
}

/** A consumer in TOML: `sh` is woken with `command`, and asked by `health`. */
function consumer(
  at: (...names: readonly string[]) => string,
  name: string,
  lines: { readonly command?: string; readonly health?: string; readonly more?: string } = {},
): string {
  const shell = (key: string, script?: string): string =>
    script === undefined ? '' : `${key} = ["/bin/sh", "-c", ${JSON.stringify(script)}]\n`
  return `name = "${name}"\nformat = "json"\ndirectory = "${at(name)}"\n${shell('command', lines.command)}${shell('health', lines.health)}${lines.more ?? ''}`
}

test('consumers are given the identity and woken in the order of the configuration', async () => {
  const { at, configure, run, seen, first } = await gateway()
  const names = ['zeta', 'alpha', 'mid']
  configure(
    ...names.map((name) => consumer(at, name, { command: `echo ${name} >> ${at('woken')}` })),
  )
  const { code, results } = await run()
  expect(code).toBe(0)
  expect(results).toEqual({ zeta: 'delivered', alpha: 'delivered', mid: 'delivered' })
  expect(fs.readFileSync(at('woken'), 'utf8')).toBe('zeta\nalpha\nmid\n')
  expect(names.map(seen)).toEqual([first, first, first])
})

test('one that has the present identity is neither written to nor woken', async () => {
  const { at, configure, run } = await gateway()
  configure(consumer(at, 'one', { command: `echo woken >> ${at('woken')}` }))
  await run()
  const before = contents(at('one')).map((name) => fs.lstatSync(at('one', name)).ctimeMs)
  const { code, results } = await run()
  expect([code, results]).toEqual([0, { one: 'unchanged' }])
  expect(contents(at('one')).map((name) => fs.lstatSync(at('one', name)).ctimeMs)).toEqual(before)
  expect(fs.readFileSync(at('woken'), 'utf8')).toBe('woken\n')
  expect(fs.existsSync(at('mark/unfinished'))).toBe(false)
})

test('one that is not well with the new identity has the old one back, alone', async () => {
  const { at, configure, run, change, seen, first } = await gateway()
  const healthy = `test ! -e ${at('sick')}`
  configure(consumer(at, 'sick'), consumer(at, 'well'))
  await run()
  const second = await change()
  // Well with the first identity only.
  const check = `grep -q ${first} ${at('sick')}/current/certvend.json`
  configure(
    consumer(at, 'sick', { health: check, more: 'time_limit = 1' }),
    consumer(at, 'well', { health: healthy.replace(at('sick'), at('nothing')) }),
  )
  const { code, results, reasons } = await run()
  expect(code).toBe(1)
  expect(results).toEqual({ sick: 'rolled-back', well: 'delivered' })
  expect(reasons.sick).toContain('/bin/sh exit code 1 for 1 s')
  expect([seen('sick'), seen('well')]).toEqual([first, second])
})

test('one that cannot be woken has the old one back, and the reason names the program', async () => {
  const { at, configure, run, change, seen, first } = await gateway()
  configure(consumer(at, 'one'))
  await run()
  await change()
  configure(consumer(at, 'one', { command: 'exit 7' }))
  const { results, reasons } = await run()
  expect(results).toEqual({ one: 'rolled-back' })
  expect(reasons.one).toBe(
    '/bin/sh exit code 7; with the identity before it, too: /bin/sh exit code 7',
  )
  expect(seen('one')).toBe(first)
})

test('one that had none before keeps the new one, and is said not to be well', async () => {
  const { at, configure, run, seen, first } = await gateway()
  configure(consumer(at, 'one', { command: 'exit 1' }))
  const { code, results } = await run()
  expect([code, results]).toEqual([1, { one: 'unhealthy' }])
  expect(seen('one')).toBe(first)
})

test('one that takes longer than its limit is ended, with what it started', async () => {
  const { at, configure, run } = await gateway()
  configure(
    consumer(at, 'slow', {
      command: `sh -c 'echo $$ > ${at('pid')}; exec sleep 600' & wait`,
      more: 'time_limit = 1',
    }),
  )
  const { reasons } = await run()
  expect(reasons.slow).toBe('/bin/sh took longer than 1 s')
  const pid = Number(fs.readFileSync(at('pid'), 'utf8'))
  await expect.poll(() => isGone(pid)).toBe(true)
})

const isGone = (pid: number): boolean => {
  try {
    return /^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return true
  }
}

test('one that was rolled back is tried again by the next run, and by no other', async () => {
  const { at, configure, run, change, seen } = await gateway()
  configure(consumer(at, 'one'))
  await run()
  const second = await change()
  configure(consumer(at, 'one', { command: `test -e ${at('cured')}` }))
  expect((await run()).results).toEqual({ one: 'rolled-back' })
  fs.writeFileSync(at('cured'), '')
  expect((await run()).results).toEqual({ one: 'delivered' })
  expect(seen('one')).toBe(second)
})

test('the set before stays until every consumer is well', async () => {
  const { at, configure, run, change } = await gateway()
  const sets = (name: string): number => fs.readdirSync(at(name, 'sets')).length
  configure(consumer(at, 'sick'), consumer(at, 'well'))
  await run()
  await change()
  configure(consumer(at, 'sick', { command: `test -e ${at('cured')}` }), consumer(at, 'well'))
  await run()
  expect(sets('well')).toBe(2)
  fs.writeFileSync(at('cured'), '')
  await run()
  expect([sets('sick'), sets('well')]).toEqual([1, 1])
})

test('a run that was killed while it woke a consumer is finished by the next', async () => {
  const { at, configure, run, command, change, seen } = await gateway()
  configure(consumer(at, 'one'))
  await run()
  const second = await change()
  configure(
    consumer(at, 'one', {
      command: `echo woken >> ${at('woken')}; test -e ${at('again')} || { echo $$ > ${at('pid')}; exec sleep 600 >&- 2>&-; }`,
    }),
  )
  const killed = command('run')
  await expect.poll(() => fs.existsSync(at('pid'))).toBe(true)
  killed.child.kill('SIGKILL')
  await killed.exited
  process.kill(Number(fs.readFileSync(at('pid'), 'utf8')))
  expect(fs.existsSync(at('mark/unfinished'))).toBe(true)
  fs.writeFileSync(at('again'), '')
  expect((await run()).results).toEqual({ one: 'delivered' })
  expect(fs.readFileSync(at('woken'), 'utf8')).toBe('woken\nwoken\n')
  expect(seen('one')).toBe(second)
  expect(fs.existsSync(at('mark/unfinished'))).toBe(false)
})

test('an identity that changes during a run is handed on by the same run', async () => {
  const { at, configure, run, command, change, seen } = await gateway()
  configure(consumer(at, 'one'))
  await run()
  await change()
  const once = `test -e ${at('going')} || { : > ${at('going')}; while test ! -e ${at('go')}; do sleep 0.05; done; }`
  configure(consumer(at, 'one', { command: once }))
  const running = command('run')
  await expect.poll(() => fs.existsSync(at('going'))).toBe(true)
  const third = await change()
  fs.writeFileSync(at('go'), '')
  expect((await running.exited).code).toBe(0)
  expect(seen('one')).toBe(third)
})

test('status shows what the last run came to', async () => {
  const { at, configure, run } = await gateway()
  configure(consumer(at, 'one', { command: 'exit 1' }))
  await run()
  const record = JSON.parse(fs.readFileSync(at('record/consumers.json'), 'utf8'))
  expect(record.consumers).toMatchObject([{ name: 'one', state: 'unhealthy' }])
  expect(fs.statSync(at('record/consumers.json')).mode & 0o777).toBe(0o644)
})

test.each([
  ['format = "pem"\ndirectory = "/srv/x"', ':2: consumers.name'],
  ['name = "a"\nformat = "pgp"\ndirectory = "/srv/x"', ':4: consumers.format: expected one of pem'],
  [
    'name = "a"\nformat = "pem"\ndirectory = "x"',
    ':5: consumers.directory: expected an absolute path',
  ],
  ['name = "a"\nformat = "pem"\ndirectory = "/srv/x"\nmode = "0644"', ':6: consumers.mode'],
  ['name = "a"\nformat = "pem"\ndirectory = "/srv/x"\ncommand = ["reload"]', 'full path'],
  [
    'name = "a"\nformat = "pem"\ndirectory = "/srv/x"\nuint = "a.service"',
    'did you mean "consumers.unit"?',
  ],
  ['name = "a"\nformat = "pem"\ndirectory = "/srv/x"\naction = "reload"', 'action goes with unit'],
  ['name = "a"\nformat = "pem"\ndirectory = "/srv/x"\nunit = "../a.service"', ':6: consumers.unit'],
])('%j is refused with its line', async (lines, why) => {
  const { configure, run } = await gateway()
  configure(lines)
  const { code, stderr } = await run()
  expect(stderr).toContain(why)
  expect(code).toBe(2)
})

test('a configuration that others may write to names no programs', async () => {
  const { at, configure, run } = await gateway()
  configure(consumer(at, 'one', { command: `touch ${at('ran')}` }))
  fs.chmodSync(at('agent.toml'), 0o666)
  const { code, stderr } = await run()
  expect(stderr).toContain(`chmod go-w ${at('agent.toml')}`)
  expect(code).toBe(2)
  expect(fs.existsSync(at('ran'))).toBe(false)
})

test('a directory that others may write to gets nothing, and the next consumer all', async () => {
  const { at, configure, run } = await gateway()
  fs.mkdirSync(at('open'))
  fs.chmodSync(at('open'), 0o777)
  configure(consumer(at, 'open'), consumer(at, 'safe'))
  const { results, reasons } = await run()
  expect(results).toEqual({ open: 'failed', safe: 'delivered' })
  expect(reasons.open).toContain('is writable by group or others')
  expect(contents(at('open'))).toEqual([])
})

test('check says what a run would do, and does nothing', async () => {
  const { at, configure, command } = await gateway()
  configure(consumer(at, 'one', { command: 'true', health: 'true' }))
  const check = command('check')
  expect((await check.exited).code).toBe(0)
  expect(check.stdout).toBe(
    `one: would be given device-1, then /bin/sh -c true, then asked by /bin/sh -c true (${at('one')})\n`,
  )
  expect(fs.existsSync(at('one'))).toBe(false)
})

test('erase leaves no key in any directory that was ever handed one', async () => {
  const { at, configure, run, command } = await gateway()
  configure(consumer(at, 'former'), consumer(at, 'present'))
  await run()
  configure(consumer(at, 'present'))
  await run()
  fs.writeFileSync(at('present/theirs.conf'), 'kept')
  const erase = command('erase')
  expect((await erase.exited).code).toBe(0)
  expect(contents(at('former'))).toEqual([])
  expect(contents(at('present'))).toEqual(['theirs.conf'])
  expect(fs.existsSync(at('mark/directories'))).toBe(false)
})

test('without consumers there is nothing to do', async () => {
  const { configure, run, at } = await gateway()
  configure()
  const { code, stderr } = await run()
  expect([code, stderr]).toEqual([0, 'no [[consumers]] are configured: nothing to hand on\n'])
  expect(fs.existsSync(at('record'))).toBe(false)
})

test('a consumer that reads all the while never sees the key of one identity with the certificate of another', async () => {
  const { at, configure, run, change } = await gateway()
  configure(consumer(at, 'one'))
  await run()
  const reader = startReader(at('one'))
  for (let round = 0; round < 12; round++) {
    await change()
    expect((await run()).code).toBe(0)
  }
  const { reads, mixed, identities } = await reader.stop()
  expect({ mixed, identities }).toEqual({ mixed: 0, identities: 13 })
  expect(reads).toBeGreaterThan(100)
})

/** Reads the pair that the manifest names, again and again, in this process. */
function startReader(directory: string) {
  const seen = { reads: 0, mixed: 0, names: new Set<string>() }
  let going = true
  const loop = (async () => {
    const { createPrivateKey, createPublicKey, X509Certificate } = await import('node:crypto')
    while (going) {
      const { files, certificateId } = JSON.parse(
        fs.readFileSync(path.join(directory, 'current/certvend.json'), 'utf8'),
      )
      try {
        const certificate = new X509Certificate(fs.readFileSync(files.certificate))
        await new Promise(setImmediate) // anything may happen between the two
        const key = createPublicKey(createPrivateKey(fs.readFileSync(files.privateKey)))
        if (!certificate.publicKey.equals(key)) seen.mixed++
        seen.names.add(certificateId)
        seen.reads++
      } catch (error) {
        // A reader that is two changes late finds nothing, and reads the manifest again.
        if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      }
    }
  })()
  return {
    async stop() {
      going = false
      await loop
      return { ...seen, identities: seen.names.size }
    },
  }
}
