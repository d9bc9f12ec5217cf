import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { describe, expect, it } from 'vitest'
import { parseConfig } from '../src/config.ts'
import { applicationId, readSerial, type SerialSource } from '../src/serial.ts'
import { type Folder, makeFolder } from './folder.ts'

const from = 'agent.toml:3'
const machineId = '0123456789abcdef0123456789abcdef'

/** A machine whose `/etc` and `/sys` hold these files. */
function machine(files: Readonly<Record<string, string>>): { folder: Folder; root: string } {
  const folder = makeFolder()
  for (const [name, text] of Object.entries(files)) {
    fs.mkdirSync(path.dirname(folder.at(name)), { recursive: true })
    folder.write(name, text)
  }
  return { folder, root: folder.path }
}

const tree = 'sys/firmware/devicetree/base/serial-number'
const dmi = 'sys/class/dmi/id/product_serial'

describe('the serial', () => {
  it('is what agent.toml says', () => {
    expect(readSerial({ kind: 'literal', value: 'GW-1', from })).toEqual({ value: 'GW-1', from })
  })

  it('is what a file holds, without the white space around it', () => {
    const { folder } = machine({ label: ' GW-2\r\n' })
    const source: SerialSource = { kind: 'file', file: folder.at('label'), from }
    expect(readSerial(source)).toEqual({ value: 'GW-2', from: `${from}: ${folder.at('label')}` })
  })

  it('is the device tree’s, which ends with a NUL', () => {
    const { root } = machine({ [tree]: '10000000abcdef01\0' })
    expect(readSerial({ kind: 'device-tree', from }, { root }).value).toBe('10000000abcdef01')
  })

  it('is the DMI’s, by the copy that systemd hands over before the original', () => {
    const { folder, root } = machine({ [dmi]: 'from-sys\n', 'dmi-serial': 'handed\n' })
    expect(readSerial({ kind: 'dmi', from }, { root }).value).toBe('from-sys')
    const environment = { CREDENTIALS_DIRECTORY: folder.path }
    expect(readSerial({ kind: 'dmi', from }, { root, environment }).value).toBe('handed')
  })

  it('is derived from the machine id, never the machine id', () => {
    const { root } = machine({ 'etc/machine-id': `${machineId}\n` })
    const { value } = readSerial({ kind: 'machine-id', from }, { root })
    expect(value).toMatch(/^[0-9a-f]{12}4[0-9a-f]{3}[89ab][0-9a-f]{15}$/)
    expect(value).not.toContain(machineId.slice(0, 8))
  })

  it('derived from the machine id is what systemd-id128 derives', (context) => {
    const asked = spawnSync(
      'systemd-id128',
      [
        'machine-id',
        '--app-specific',
        applicationId.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'),
      ],
      { encoding: 'utf8' },
    )
    context.skip(asked.status !== 0, 'systemd-id128 or a machine id is not here')
    const { value } = readSerial({ kind: 'machine-id', from })
    expect(value).toBe(asked.stdout.trim())
  })

  it('is what a command prints', () => {
    const { folder } = machine({ ask: '#!/bin/sh\necho "$1-3"\n' })
    fs.chmodSync(folder.at('ask'), 0o755)
    const source: SerialSource = { kind: 'command', command: [folder.at('ask'), 'GW'], from }
    expect(readSerial(source)).toEqual({ value: 'GW-3', from: `${from}: ${folder.at('ask')}` })
  })

  it('where nobody names one is the device tree’s, else derived from the machine id', () => {
    const board = machine({ [tree]: 'abc\0', 'etc/machine-id': machineId })
    expect(readSerial({ kind: 'default', from }, board).value).toBe('abc')
    const box = machine({ 'etc/machine-id': machineId })
    expect(readSerial({ kind: 'default', from }, box).value).toMatch(/^[0-9a-f]{32}$/)
  })
})

const refusal = (source: SerialSource, root?: string): string => {
  try {
    readSerial(source, root === undefined ? {} : { root })
  } catch (error) {
    return (error as Error).message
  }
  return 'accepted'
}

describe('a serial is refused', () => {
  it.each([
    'To be filled by O.E.M.',
    'System Serial Number',
    'Default string',
    'Not Specified',
    'None',
    '0000000000000000',
    '123456789',
  ])('that many devices show: %s', (text) => {
    const { root } = machine({ [dmi]: `${text}\n` })
    expect(refusal({ kind: 'dmi', from }, root)).toContain('many devices show')
  })

  it.each(['uninitialized\n', '', '00000000000000000000000000000000\n'])(
    'when the machine id is not one: %j',
    (text) => {
      const { root } = machine({ 'etc/machine-id': text })
      expect(refusal({ kind: 'machine-id', from }, root)).toContain('holds no machine id')
    },
  )

  it('when its file is missing, empty, or holds more than a serial', () => {
    const { folder } = machine({ empty: '\n', two: 'GW-1\nGW-2\n' })
    const file = (name: string): string => refusal({ kind: 'file', file: folder.at(name), from })
    expect(file('none')).toBe(`${from}: the serial file ${folder.at('none')} does not exist`)
    expect(file('empty')).toBe(`${from}: ${folder.at('empty')}: the serial is empty`)
    expect(file('two')).toContain('the serial must be 1 to 64 letters')
  })

  it('when the board has none', () => {
    const { root } = machine({})
    expect(refusal({ kind: 'device-tree', from }, root)).toContain('does not exist')
  })

  it.each([
    ['/nonexistent/serial', 'ENOENT'],
    ['/bin/false', 'exit code 1'],
  ])('when the command fails: %s', (program, why) => {
    const message = refusal({ kind: 'command', command: [program], from })
    expect(message).toBe(`${from}: ${program} gave no serial (${why})`)
  })

  it('when the command prints nothing', () => {
    expect(refusal({ kind: 'command', command: ['/bin/true'], from })).toBe(
      `${from}: /bin/true: the serial is empty`,
    )
  })
})

describe('in agent.toml the serial', () => {
  const read = (line: string) => parseConfig(line, '/etc/certvend/agent.toml').serial
  const at = { from: '/etc/certvend/agent.toml:1' }
  it.each([
    ['serial = "GW-1"', { kind: 'literal', value: 'GW-1' }],
    ['serial = { file = "label" }', { kind: 'file', file: '/etc/certvend/label' }],
    ['serial = { from = "machine-id" }', { kind: 'machine-id' }],
    ['serial = { command = ["/bin/x", "-s"] }', { kind: 'command', command: ['/bin/x', '-s'] }],
  ])('is written %s', (line, source) => {
    expect(read(line)).toEqual({ ...source, ...at })
  })

  it.each([
    'serial = 3',
    'serial = {}',
    'serial = { from = "moon" }',
    'serial = { file = "" }',
    'serial = { command = "date" }',
    'serial = { command = [] }',
    'serial = { command = ["date"] }',
    'serial = { file = "a", from = "dmi" }',
  ])('is refused with its line: %s', (line) => {
    expect(() => read(line)).toThrow(/^\/etc\/certvend\/agent\.toml:1: serial/)
  })
})
