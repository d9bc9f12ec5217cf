/** Transcripts of the built command: what it prints where, and how it exits. */
import fs from 'node:fs'
import { describe, expect, it } from 'vitest'
import { certvend, type Outcome } from './command.ts'
import { type Folder, makeFolder } from './folder.ts'
import { caPem, expiredCaPem, notCaPem } from './pins.ts'

const usage = (message: string, hint?: string): Outcome => ({
  code: 2,
  stdout: '',
  stderr: `certvend: ${message}\n${hint === undefined ? '' : `hint: ${hint}\n`}`,
})

const seeHelp = 'certvend --help shows what there is'
const neverArgv =
  'a token is never given on the command line, where every user sees it: --token-file FILE'

describe('certvend', () => {
  it('shows its help, with worked examples and exit codes', async () => {
    const { code, stdout, stderr } = await certvend(['--help'], { cwd: makeFolder().path })
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(stdout).toBe(`Usage: certvend [options] [command]

Gets this device its certificate, keeps it, and keeps the device online.

The first boot asks a vending machine, with the serial and a one-time token,
over HTTPS pinned to a CA of your choice. Every later boot asks nobody.

Options:
  --version                      print the version
  --help                         print this help

Commands:
  init [options]                 ask what is needed, try each answer, and write
                                 agent.toml
  enroll [options]               get this device's certificate; if it has one,
                                 only say so
  run [options]                  enroll if needed, connect, and stay online
  renew [options]                another key and certificate, by the ones in use
  forget [options]               factory reset: remove key and certificate for
                                 good
  status [options]               who am I, am I online, until when, and what is
                                 wrong
  doctor [options]               what is wrong, the most likely cause first, and
                                 what to do about it
  explain [options]              the last failure in one sentence, and what it
                                 rests on
  reload [options]               let the running agent read its configuration
                                 again
  config                         look after the configuration
  import-token [options] [file]  move a token from the boot partition into the
                                 state directory
  aws-credentials [options]      temporary AWS credentials of this device, for
                                 any AWS SDK
  probe [options] [url]          which dialect a vending machine speaks, without
                                 spending anything
  store                          look after the state directory
  export [options]               the credential in the form in which another
                                 program takes it
  consumers                      programs that are handed each new identity

Examples:
  See what happens, with everything on the command line:
    certvend enroll --server https://vending.example.com --pin vending-ca.pem \\
      --serial GW-0001 --token-file claim.token --state-dir ./state
    certvend run --state-dir ./state

  On a gateway, where /etc/certvend/agent.toml says
    url = "https://vending.example.com"
    pins = "vending-ca.pem"
    serial = "GW-0001"
    token_file = "claim.token"
  it is
    certvend run

  How is it, for people and for programs:
    certvend status
    certvend status --json | jq -r .credential.notAfter

Exit codes:
  0  done
  1  failed, trying again may help
  2  usage or configuration
  3  a person must act
`)
  })

  it.each(['init', 'enroll', 'run', 'renew', 'forget', 'status', 'doctor', 'explain'])(
    'shows help for %s, with an example',
    async (command) => {
      const { code, stdout, stderr } = await certvend([command, '--help'], {
        cwd: makeFolder().path,
      })
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      expect(stdout).toMatch(new RegExp(`^Usage: certvend ${command} \\[options\\]\n`))
      expect(stdout).toMatch(new RegExp(`\nExample:\n  certvend ${command} `))
      expect(Math.max(...stdout.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(80)
    },
  )

  it('prints its version', async () => {
    const { version } = JSON.parse(
      fs.readFileSync(new URL('../package.json', import.meta.url), 'utf8'),
    )
    expect(await certvend(['--version'], { cwd: makeFolder().path })).toEqual({
      code: 0,
      stdout: `certvend ${version}\n`,
      stderr: '',
    })
  })

  it('without a command shows its help on stderr, as an error', async () => {
    const { code, stdout, stderr } = await certvend([], { cwd: makeFolder().path })
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(/^Usage: certvend /)
  })

  it.each([
    [['enrol'], usage("unknown command 'enrol'", 'did you mean enroll?')],
    [['frobnicate'], usage("unknown command 'frobnicate'", seeHelp)],
    [['run', '--pins', 'x'], usage("unknown option '--pins'", 'did you mean --pin?')],
    [['enroll', '--token', 's3cret'], usage("unknown option '--token'", neverArgv)],
    [['enroll', '--token=s3cret'], usage("unknown option '--token'", neverArgv)],
    [['status', 's3cret'], usage("too many arguments for 'status'", seeHelp)],
    [['enroll', '--pin'], usage("option '--pin <file>' argument missing", seeHelp)],
    [['status', '--config', ''], usage('--config is empty')],
  ])('refuses %j', async (argv, outcome) => {
    const folder = makeFolder()
    expect(await certvend(argv, { cwd: folder.path })).toEqual(outcome)
    expect(folder.list()).toEqual([])
  })
})

interface Claim {
  readonly server?: string
  readonly pin?: string
  readonly serial?: string
  readonly 'token-file'?: string
}

/** The flags of a claim that is in order, save what the test changes; nobody listens there. */
function flags(folder: Folder, changed: Claim): string[] {
  const claim: Claim = {
    server: 'https://localhost:1',
    pin: folder.write('pin.pem', caPem),
    serial: 'GW-1',
    'token-file': folder.write('token', 'a-good-token\n'),
    ...changed,
  }
  return Object.entries(claim).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, value],
  )
}

const pinHint =
  'a pin is the CA certificate, in PEM, that issued the vending server its certificate'
const nameIt = (option: string, key: string): string =>
  `name it: ${option}, or ${key} in /etc/certvend/agent.toml`

type Mistake = [string, (folder: Folder) => Claim, (folder: Folder) => Outcome]

const mistakes: Mistake[] = [
  [
    'no server',
    () => ({ server: undefined }) as never,
    () => usage('no vending server', nameIt('--server URL', 'url = "https://…"')),
  ],
  [
    'no pin',
    () => ({ pin: undefined }) as never,
    () => usage('no pin', nameIt('--pin FILE', 'pins = "FILE"')),
  ],
  [
    'no token file',
    () => ({ 'token-file': undefined }) as never,
    () => usage('no token', nameIt('--token-file FILE', 'token_file = "FILE"')),
  ],
  [
    'a server that is not a URL',
    () => ({ server: 'vending.example.com' }),
    () => usage('--server: the vending URL is not a URL'),
  ],
  [
    'a server over http',
    () => ({ server: 'http://vending.example.com' }),
    () => usage('--server: the vending URL must start with https://'),
  ],
  [
    'a server URL with a password',
    () => ({ server: 'https://user:s3cret@vending.example.com' }),
    () => usage('--server: the vending URL must not hold credentials, a query or a fragment'),
  ],
  [
    'a pin file that is missing',
    (folder) => ({ pin: folder.at('none.pem') }),
    (folder) => usage(`--pin: the pin file ${folder.at('none.pem')} does not exist`),
  ],
  [
    'a pin file that is a directory',
    (folder) => ({ pin: folder.path }),
    (folder) => usage(`--pin: the pin file ${folder.path} is not a plain file`),
  ],
  [
    'a pin file that is empty',
    (folder) => ({ pin: folder.write('empty.pem', ' \n') }),
    (folder) => usage(`--pin: the pin file ${folder.at('empty.pem')} is empty`, pinHint),
  ],
  [
    'a pin file that is not PEM',
    (folder) => ({ pin: folder.write('junk.pem', 'hello') }),
    (folder) =>
      usage(
        `--pin: the pin file ${folder.at('junk.pem')} cannot be used: no PEM certificate found`,
        pinHint,
      ),
  ],
  [
    'a pin that is damaged',
    (folder) => ({ pin: folder.write('cut.pem', caPem.replace(/\n[^\n]{20}/, '\n')) }),
    (folder) =>
      usage(
        `--pin: the pin file ${folder.at('cut.pem')} cannot be used: certificate 1 cannot be read`,
        pinHint,
      ),
  ],
  [
    'a pin that is not a CA',
    (folder) => ({ pin: folder.write('leaf.pem', notCaPem) }),
    (folder) =>
      usage(
        `--pin: the pin file ${folder.at('leaf.pem')} cannot be used: "CN=vending.example.com" is not a CA certificate; pin the CA that issued it`,
        pinHint,
      ),
  ],
  [
    'a serial with a path in it',
    () => ({ serial: '../GW-1' }),
    () =>
      usage(
        '--serial: the serial must be 1 to 64 letters, digits, ":", "_", "-" or ".", starting with a letter or digit',
      ),
  ],
  [
    'a serial of 10 000 characters',
    () => ({ serial: 'x'.repeat(10_000) }),
    () =>
      usage(
        '--serial: the serial must be 1 to 64 letters, digits, ":", "_", "-" or ".", starting with a letter or digit',
      ),
  ],
  [
    'a token file that is missing',
    (folder) => ({ 'token-file': folder.at('none') }),
    (folder) => usage(`--token-file: the token file ${folder.at('none')} does not exist`),
  ],
  [
    'a token file that is empty',
    (folder) => ({ 'token-file': folder.write('empty', '\n') }),
    (folder) => usage(`--token-file: the token file ${folder.at('empty')} is empty`),
  ],
  [
    'a token file that holds something else',
    (folder) => ({ 'token-file': folder.write('letter', 'dear s3cret sir\n') }),
    (folder) =>
      usage(
        `--token-file: the token file ${folder.at('letter')} holds no token`,
        'a token is 8 to 512 letters, digits and -._~+/ on one line, and nothing else is in the file',
      ),
  ],
  [
    'a token file that everybody reads',
    (folder) => ({ 'token-file': folder.write('open', 'a-good-token', 0o644) }),
    (folder) =>
      usage(
        `--token-file: the token file ${folder.at('open')} is open to other users`,
        `take that away: chmod 600 ${folder.at('open')}`,
      ),
  ],
  [
    'a token file that its group writes',
    (folder) => ({ 'token-file': folder.write('open', 'a-good-token', 0o660) }),
    (folder) =>
      usage(
        `--token-file: the token file ${folder.at('open')} is open to other users`,
        `take that away: chmod 600 ${folder.at('open')}`,
      ),
  ],
]

describe('before anything is made or sent', () => {
  it.each(mistakes)('enroll refuses %s', async (_, change, outcome) => {
    const folder = makeFolder()
    const argv = ['enroll', ...flags(folder, change(folder)), '--state-dir', folder.at('state')]
    expect(await certvend(argv, { cwd: folder.path })).toEqual(outcome(folder))
    expect(folder.list()).not.toContain('state')
  })

  it('run refuses the same mistakes, and logs nothing but that it started', async () => {
    const folder = makeFolder()
    const argv = [
      'run',
      ...flags(folder, { server: 'http://x' }),
      '--state-dir',
      folder.at('state'),
    ]
    const { code, stdout, stderr } = await certvend(argv, { cwd: folder.path })
    expect(code).toBe(2)
    expect(stderr).toBe('certvend: --server: the vending URL must start with https://\n')
    expect(
      stdout
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line).event),
    ).toEqual(['agent.start'])
    expect(folder.list()).not.toContain('state')
  })

  it('enroll refuses pins that have all expired, and says both dates', async () => {
    const folder = makeFolder()
    const pin = folder.write('old.pem', expiredCaPem)
    const { code, stdout, stderr } = await certvend(
      ['enroll', ...flags(folder, { pin }), '--state-dir', folder.at('state')],
      { cwd: folder.path },
    )
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' })
    expect(stderr).toMatch(
      /^certvend: every pin has expired, the last on 2021-01-01T00:00:00.000Z; this device's clock says \d{4}-.*Z\nhint: get the pin /,
    )
    expect(folder.list()).not.toContain('state')
  })

  it('names the line of agent.toml when the mistake is there', async () => {
    const folder = makeFolder()
    folder.write('agent.toml', 'serial = "GW-1"\ntoken_file = "token"\nurl = "http://x"\n')
    folder.write('token', 'a-good-token')
    const pin = folder.write('pin.pem', caPem)
    expect(
      await certvend(['enroll', '--config', 'agent.toml', '--pin', pin], { cwd: folder.path }),
    ).toEqual(usage('agent.toml:3: the vending URL must start with https://'))
  })

  it('reads a token that systemd hands over, whatever its mode', async () => {
    const folder = makeFolder()
    const token = folder.write('claim-token', 'a-good-token', 0o444)
    const { code, stderr } = await certvend(
      ['enroll', '--once', ...flags(folder, { 'token-file': token }), '--state-dir', 'state'],
      { cwd: folder.path, env: { CREDENTIALS_DIRECTORY: folder.path } },
    )
    expect(code).toBe(1)
    expect(stderr).toContain('(ERR_NETWORK)')
  })
})

describe('one attempt that nobody answers', () => {
  it('fails with 1, says why, and keeps the key for the next', async () => {
    const folder = makeFolder()
    const argv = ['enroll', '--once', ...flags(folder, {}), '--state-dir', folder.at('state')]
    const first = await certvend(argv, { cwd: folder.path })
    expect(first.code).toBe(1)
    expect(first.stdout).toBe('')
    expect(first.stderr).toMatch(
      /^made a private key and stored it\nasking localhost:1 for a certificate\ncertvend: cannot reach localhost:1 \(ECONNREFUSED\) \(ERR_NETWORK\)\nhint: check DNS/,
    )
    const key = fs.readFileSync(folder.at('state/pending/private-key.pem'), 'utf8')
    const second = await certvend(argv, { cwd: folder.path })
    expect(second.stderr).toMatch(/^asking localhost:1 for a certificate\n/)
    expect(fs.readFileSync(folder.at('state/pending/private-key.pem'), 'utf8')).toBe(key)
  })
})
