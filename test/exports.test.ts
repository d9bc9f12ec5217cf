/** `certvend export`: each format read back by the program that it is for, or by openssl. */
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { createPublicKey, X509Certificate } from 'node:crypto'
import fs from 'node:fs'
import path from 'node:path'
import { type Credential, openCredentialStore } from '@certvend/client'
import { expect, onTestFinished, test } from 'vitest'
import { start } from './agent-process.ts'
import { mosquittoMissing, startMosquitto } from './mosquitto.ts'
import { certify } from './pki.ts'
import { furnished, issuedFor, stateDirectory } from './stored-credential.ts'
import { contents, temporaryDirectory } from './temporary.ts'

const opensslMissing = spawnSync('openssl', ['version']).status !== 0
const withOpenssl = test.skipIf(opensslMissing)

interface Said {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

async function certvend(...argv: readonly string[]): Promise<Said> {
  const command = start(argv, { cwd: temporaryDirectory() })
  const { code } = await command.exited
  return { code: code ?? -1, stdout: command.stdout, stderr: command.stderr }
}

/** A store, a place beside it, and `certvend export` from the one into the other. */
async function exporter(credentialOf = furnished) {
  const { directory, credential } = await credentialOf()
  const out = path.join(temporaryDirectory(), 'identity')
  const current = path.join(out, 'current')
  return {
    credential,
    out,
    current,
    read: (name: string): string => fs.readFileSync(path.join(current, name), 'utf8'),
    run: (...argv: readonly string[]) =>
      certvend('export', '--state-dir', directory, '--out', out, ...argv),
  }
}

const openssl = (...argv: readonly string[]): string =>
  execFileSync('openssl', argv, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] })

const publicKeyOf = (credential: Credential): string =>
  credential.privateKey.publicKey.export({ type: 'spki', format: 'pem' }).toString()

withOpenssl(
  'pem is one set, whose key openssl finds to be the one of the certificate',
  async () => {
    const { run, current, credential } = await exporter()
    const { code, stdout } = await run('--format', 'pem')
    expect(code).toBe(0)
    const names = ['private-key.pem', 'certificate.pem', 'trust-anchors.pem']
    expect(stdout.trim().split('\n')).toEqual(names.map((name) => path.join(current, name)))
    const key = openssl('pkey', '-in', path.join(current, 'private-key.pem'), '-pubout')
    expect(key).toBe(
      openssl('x509', '-in', path.join(current, 'certificate.pem'), '-pubkey', '-noout'),
    )
    expect(key).toBe(publicKeyOf(credential))
  },
)

test('the key is for this user alone, the rest for everybody', async () => {
  const { run, current } = await exporter()
  await run('--format', 'pem')
  const mode = (name: string) => (fs.statSync(path.join(current, name)).mode & 0o777).toString(8)
  expect(mode('private-key.pem')).toBe('600')
  expect(mode('certificate.pem')).toBe('644')
  expect(mode('.')).toBe('755')
})

test('files are called as the other program wants them', async () => {
  const { run, current } = await exporter()
  const names = ['--name', 'key=device.pem.key', '--name', 'certificate=device.pem.crt']
  expect((await run('--format', 'pem', ...names)).code).toBe(0)
  expect(contents(fs.realpathSync(current))).toEqual([
    'device.pem.crt',
    'device.pem.key',
    'set.json',
    'trust-anchors.pem',
  ])
})

test.each([
  ['P-256', 'EC'],
  ['RSA-2048', 'RSA'],
  ['Ed25519', ''],
] as const)('a traditional %s key has its own frame', async (algorithm, name) => {
  const { run, read } = await exporter(async () => {
    const directory = stateDirectory()
    const store = await openCredentialStore(directory)
    store.begin(algorithm)
    const credential = store.issue(await issuedFor(store))
    store.close()
    return { directory, credential }
  })
  expect((await run('--format', 'pem', '--key-format', 'traditional')).code).toBe(0)
  expect(read('private-key.pem').split('\n', 1)[0]).toBe(
    `-----BEGIN ${name ? `${name} ` : ''}PRIVATE KEY-----`,
  )
})

withOpenssl(
  'pem-bundle is one file with key and certificate, which openssl reads both from',
  async () => {
    const { run, current, credential } = await exporter()
    await run('--format', 'pem-bundle')
    const bundle = path.join(current, 'credential.pem')
    expect(openssl('pkey', '-in', bundle, '-pubout')).toBe(publicKeyOf(credential))
    expect(openssl('x509', '-in', bundle, '-pubkey', '-noout')).toBe(publicKeyOf(credential))
  },
)

withOpenssl('der is read by openssl, a file for each certificate', async () => {
  const { run, current, credential } = await exporter()
  await run('--format', 'der')
  const at = (name: string) => path.join(current, name)
  const key = openssl('pkey', '-inform', 'DER', '-in', at('private-key.der'), '-pubout')
  expect(key).toBe(publicKeyOf(credential))
  const pem = openssl('x509', '-inform', 'DER', '-in', at('certificate.der'))
  expect(new X509Certificate(pem).fingerprint256).toBe(
    new X509Certificate(credential.certificateChain).fingerprint256,
  )
  openssl('x509', '-inform', 'DER', '-in', at('trust-anchor-1.der'), '-noout')
})

withOpenssl('pkcs12 opens with its password and with no other', async () => {
  const { run, current, credential, out } = await exporter()
  const password = path.join(path.dirname(out), 'password')
  fs.writeFileSync(password, 'correct horse\n', { mode: 0o600 })
  expect((await run('--format', 'pkcs12', '--password-file', password)).code).toBe(0)
  expect(fs.readdirSync(current).sort()).toEqual(['credential.p12', 'set.json'])
  const opened = openssl(
    'pkcs12',
    '-in',
    path.join(current, 'credential.p12'),
    '-passin',
    `file:${password}`,
    '-noenc',
  )
  const key = /-----BEGIN PRIVATE KEY[\s\S]*END PRIVATE KEY-----/.exec(opened)?.[0] ?? ''
  expect(createPublicKey(key).export({ type: 'spki', format: 'pem' })).toBe(publicKeyOf(credential))
  expect(opened).toContain('friendlyName: device-1')
  expect(() =>
    openssl(
      'pkcs12',
      '-in',
      path.join(current, 'credential.p12'),
      '-passin',
      'pass:wrong',
      '-noenc',
    ),
  ).toThrow()
})

test('aws-iot-device-client gets its configuration, and the modes that it insists on', async () => {
  const { run, read, current } = await exporter()
  await run('--format', 'aws-iot-device-client')
  const configuration = JSON.parse(read('aws-iot-device-client.conf'))
  expect(configuration).toEqual({
    endpoint: 'mqtt.example',
    cert: expect.stringMatching(/\/certificate\.pem$/),
    key: expect.stringMatching(/\/private-key\.pem$/),
    'root-ca': expect.stringMatching(/\/trust-anchors\.pem$/),
    'thing-name': 'device-1',
  })
  expect(fs.statSync(configuration.key).mode & 0o777).toBe(0o600)
  expect(path.dirname(configuration.key)).toBe(fs.realpathSync(current))
})

test('a configuration names files of its own set, so that it cannot mix two identities', async () => {
  const { run, read } = await exporter()
  await run('--format', 'json')
  const { privateKey, certificate } = JSON.parse(read('certvend.json')).files
  expect(path.dirname(privateKey)).toBe(path.dirname(certificate))
  expect(privateKey).not.toContain('/current/')
  const carried = new X509Certificate(fs.readFileSync(certificate)).publicKey
  expect(carried.equals(createPublicKey(fs.readFileSync(privateKey)))).toBe(true)
})

test('greengrass gets config.yaml with every key that its installer asks for', async () => {
  const { run, read } = await exporter()
  const said = await run(
    ...['--format', 'greengrass', '--role-alias', 'GreengrassAlias', '--aws-region', 'eu-west-1'],
    ...['--credentials-endpoint', 'prefix.credentials.iot.eu-west-1.amazonaws.com'],
  )
  expect(said.code).toBe(0)
  const lines = read('config.yaml').split('\n')
  for (const line of [
    '---',
    'system:',
    '  rootpath: "/greengrass/v2"',
    '  thingName: "device-1"',
    '  aws.greengrass.Nucleus:',
    '      awsRegion: "eu-west-1"',
    '      iotRoleAlias: "GreengrassAlias"',
    '      iotDataEndpoint: "mqtt.example"',
    '      iotCredEndpoint: "prefix.credentials.iot.eu-west-1.amazonaws.com"',
  ])
    expect(lines).toContain(line)
  for (const key of ['certificateFilePath', 'privateKeyPath', 'rootCaPath']) {
    const file = JSON.parse(lines.find((line) => line.includes(key))?.split(': ')[1] ?? '')
    expect(fs.existsSync(file)).toBe(true)
  }
})

test('env is read by a shell', async () => {
  const { run, current, credential } = await exporter()
  await run('--format', 'env')
  const script = `. ${current}/certvend.env; printf '%s' "$CERTVEND_THING_NAME $CERTVEND_CERTIFICATE_ID $CERTVEND_ENDPOINT_PORT"`
  expect(execFileSync('sh', ['-c', script], { encoding: 'utf8' })).toBe(
    `device-1 ${credential.certificateId} 8883`,
  )
})

test('properties escape what java.util.Properties takes for a separator', async () => {
  const { run, read, credential } = await exporter()
  await run('--format', 'properties')
  const instant = credential.notAfter.toISOString().replaceAll(':', '\\:')
  expect(read('certvend.properties')).toContain(`certvend.certificate.not-after=${instant}\n`)
})

test.skipIf(mosquittoMissing)(
  'mosquitto bridges to a second broker with mutual TLS, by the file that it includes',
  async () => {
    const [deviceCa, mqttCa] = [
      await certify('Device CA', { ca: true }),
      await certify('MQTT CA', { ca: true }),
    ]
    const server = await certify('localhost', { issuer: mqttCa })
    const far = await startMosquitto({ server, deviceCa })
    onTestFinished(() => far.close())
    const { run, current } = await exporter(async () => {
      const directory = stateDirectory()
      const store = await openCredentialStore(directory)
      const { privateKey } = store.begin()
      const publicKey = privateKey.publicKey.export({ type: 'spki', format: 'der' })
      const device = await certify('device-1', { issuer: deviceCa, publicKey })
      const credential = store.issue({
        ...(await issuedFor(store)),
        certificateId: new X509Certificate(device.certificate).fingerprint256
          .replaceAll(':', '')
          .toLowerCase(),
        certificateChain: device.certificate,
        endpoint: { host: 'localhost', port: far.port, trustAnchors: [mqttCa.certificate] },
      })
      store.close()
      return { directory, credential }
    })
    expect((await run('--format', 'mosquitto-bridge', '--topic', 'sensors/# out 1')).code).toBe(0)
    const folder = temporaryDirectory()
    const configuration = path.join(folder, 'mosquitto.conf')
    const lines = [
      ...(process.getuid?.() === 0 ? ['user root'] : []),
      'persistence false',
      'log_dest stderr',
      'listener 0 127.0.0.1',
      'allow_anonymous true',
      `include_dir ${folder}/conf.d`,
    ]
    fs.mkdirSync(path.join(folder, 'conf.d'))
    fs.symlinkSync(path.join(current, 'bridge.conf'), path.join(folder, 'conf.d/certvend.conf'))
    fs.writeFileSync(configuration, `${lines.join('\n')}\n`)
    const near = spawn('mosquitto', ['-c', configuration], {
      env: { PATH: `${process.env.PATH}:/usr/sbin` },
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    onTestFinished(() => void near.kill('SIGKILL'))
    await expect.poll(() => far.log).toMatch(/New client connected from .* as device-1-bridge /)
  },
)

test('what is there already is not written again', async () => {
  const { run, out } = await exporter()
  await run('--format', 'pem')
  const before = contents(out).map((name) => fs.lstatSync(path.join(out, name)).ctimeMs)
  const again = await run('--format', 'pem', '--json')
  expect(JSON.parse(again.stdout).changed).toBe(false)
  expect(contents(out).map((name) => fs.lstatSync(path.join(out, name)).ctimeMs)).toEqual(before)
})

test('a file that was damaged is written anew, and the set before is gone', async () => {
  const { run, current, out } = await exporter()
  await run('--format', 'pem')
  fs.writeFileSync(path.join(current, 'certificate.pem'), 'damaged')
  const again = await run('--format', 'pem', '--json')
  expect(JSON.parse(again.stdout).changed).toBe(true)
  expect(fs.readFileSync(path.join(current, 'certificate.pem'), 'utf8')).toContain('CERTIFICATE')
  expect(fs.readdirSync(path.join(out, 'sets'))).toHaveLength(1)
})

test.each([
  [['--format', 'pfx'], 'there is no format "pfx"'],
  [['--format', 'greengrass'], 'the format greengrass needs aws-region'],
  [['--format', 'greengrass', '--aws-region', 'eu-west-1'], 'needs role-alias'],
  [['--format', 'mosquitto-bridge'], 'the format mosquitto-bridge needs topics'],
  [['--format', 'mosquitto-bridge', '--topic', 'a\nlistener 1883'], '--topics.0: one line'],
  [['--format', 'pkcs12'], 'the format pkcs12 needs a password'],
  [['--format', 'pkcs12', '--password-file', '/no/such'], 'does not exist'],
  [['--format', 'pem', '--name', 'key=../key'], '--names.key: expected a plain file name'],
  [['--format', 'pem', '--name', 'lock=a'], '--names.lock'],
  [
    ['--format', 'pem', '--name', 'key=one', '--name', 'certificate=one'],
    'two files would be called one',
  ],
  [['--format', 'pem', '--key-format', 'pgp'], '--key-format: expected "pkcs8" or "traditional"'],
  [['--format', 'pem', '--owner', 'nobody-of-that-name'], 'there is no user nobody-of-that-name'],
])('%j is refused, and nothing is written', async (argv, why) => {
  const { run, out } = await exporter()
  const { code, stderr } = await run(...argv)
  expect(stderr).toContain(why)
  expect(code).toBe(2)
  expect(fs.existsSync(out) ? contents(out) : []).toEqual([])
})

test('a password file that others may read is refused', async () => {
  const { run, out } = await exporter()
  const password = path.join(path.dirname(out), 'password')
  fs.writeFileSync(password, 'secret\n', { mode: 0o644 })
  const { code, stderr } = await run('--format', 'pkcs12', '--password-file', password)
  expect(stderr).toContain(`chmod 600 ${password}`)
  expect(stderr).not.toContain('secret')
  expect(code).toBe(2)
})

test('a directory that others may write to is refused with the command that mends it', async () => {
  const { run, out } = await exporter()
  fs.mkdirSync(out)
  fs.chmodSync(out, 0o777)
  const { code, stderr } = await run('--format', 'pem')
  expect(stderr).toContain(`chmod go-w ${out}`)
  expect(code).toBe(3)
  expect(contents(out)).toEqual([])
})

test('what lies in the way is left alone', async () => {
  const { run, out } = await exporter()
  fs.mkdirSync(path.join(out, 'current'), { recursive: true })
  const { code, stderr } = await run('--format', 'pem')
  expect(stderr).toContain('is in the way')
  expect(code).toBe(2)
  expect(contents(out)).toEqual(['current'])
})

test('a store without a credential has nothing to export', async () => {
  const state = stateDirectory()
  const out = path.join(temporaryDirectory(), 'identity')
  const said = await certvend('export', '--format', 'pem', '--state-dir', state, '--out', out)
  expect(said.stderr).toContain('holds no credential')
  expect(said.code).toBe(2)
  expect(fs.existsSync(out)).toBe(false)
})
