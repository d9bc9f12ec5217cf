/**
 * One row of an old vending machine's table, judged. No I/O.
 *
 * A column may hold a number, a text, DynamoDB's `{"N":"1"}` or a word from a spreadsheet, and means
 * the same: the old machines were fed by hand. What is not clear is refused with the reason, since a
 * guess would open a device that somebody has disabled.
 */
import { isDeviceSerial, isThingName } from '@certvend/client/wire'
import { type DeviceDescription, vendedElsewhere } from '../registry/registry.ts'

/** What a source gives for one row: column names as they stand, values as they came. */
export type Fields = Readonly<Record<string, unknown>>

export interface JudgedRow extends DeviceDescription {
  readonly token: string
  readonly disabled: boolean
  readonly spentOn?: string
}

export type RowJudgement =
  | { readonly ok: true; readonly row: JudgedRow }
  /** `deviceSerial` where it is one. The reason never repeats what the row holds. */
  | { readonly ok: false; readonly reason: string; readonly deviceSerial?: string }

export interface RowRules {
  /** For rows that name none. */
  readonly policyName?: string
  /** What IoT Atlas called a thing, with `%DEVICE_UID%` in it; `thing_%DEVICE_UID%` by default. */
  readonly thingNameFormat?: string
}

/** Which table a row is of, by the column that names the device. */
interface Shape {
  readonly serial: readonly string[]
  readonly token: readonly string[]
  read(column: Column, serial: string, rules: RowRules): Omit<JudgedRow, 'deviceSerial' | 'token'>
}

/** A column's text by name, whatever its case; undefined if it is missing, null or empty. */
type Column = (...names: readonly string[]) => string | undefined

const shapes: readonly Shape[] = [
  {
    // awslabs, both years, and their descendants: table deviceInfo.
    serial: ['serialNumber'],
    token: ['deviceToken'],
    read(column, serial, { policyName }) {
      const arn = column('certinfo')
      return {
        thingName: serial,
        disabled: false,
        ...(policyName !== undefined && { policyName }),
        ...(arn !== undefined && { spentOn: certificateIdIn(arn) }),
      }
    },
  },
  {
    // IoT Atlas: table DeviceProvisioningInfoDB.
    serial: ['device_uid'],
    token: ['device_token'],
    read(column, serial, { policyName, thingNameFormat = 'thing_%DEVICE_UID%' }) {
      const named = column('iot_core_thing_name')
      const isRegistered =
        flag(column, 'is_registered', named !== undefined) || column('iot_core_registered_on')
      return {
        thingName: named ?? thingNameFormat.replaceAll('%DEVICE_UID%', () => serial),
        disabled: !flag(column, 'is_enabled'),
        ...(policyName !== undefined && { policyName }),
        ...(isRegistered && { spentOn: vendedElsewhere }),
      }
    },
  },
  {
    // Express 2017: MySQL table product. The misspelt name is the newer one.
    serial: ['seriaNum', 'serialNum'],
    token: ['accessToken'],
    read(column, serial, rules) {
      const policyName = column('policyName') ?? rules.policyName
      return {
        thingName: column('thingName') ?? serial,
        disabled: false,
        ...(policyName !== undefined && { policyName }),
        // 1: may apply.
        ...(!flag(column, 'applyState') && { spentOn: vendedElsewhere }),
      }
    },
  },
]

/** Whether these are columns of a table that is known here. */
export const isKnownTable = (names: readonly string[]): boolean => {
  const lower = new Set(names.map((name) => name.trim().toLowerCase()))
  return shapes.some(({ serial }) => serial.some((name) => lower.has(name.toLowerCase())))
}

/** The columns that tell a table, for messages. */
export const knownTables = 'serialNumber (deviceInfo), device_uid (IoT Atlas) or seriaNum (product)'

/** Why a row is refused. */
const refusal = (reason: string): Error => Object.assign(new Error(reason), { isRefusal: true })
const isRefusal = (error: unknown): error is Error =>
  error instanceof Error && (error as { isRefusal?: true }).isRefusal === true

export function judgeRow(fields: Fields, rules: RowRules = {}): RowJudgement {
  let deviceSerial: string | undefined
  try {
    const column = columnsOf(fields)
    const shape = shapes.find(({ serial }) =>
      serial.some((name) => name.toLowerCase() in column.all),
    )
    if (!shape) throw refusal(`has none of the columns ${knownTables}`)
    const serial = column.text(...shape.serial)
    if (serial === undefined) throw refusal('has no serial')
    if (!isDeviceSerial(serial))
      throw refusal(
        'has a serial that cannot be used: 1 to 64 letters, digits or any of : . _ -, a letter or digit first',
      )
    deviceSerial = serial
    const token = column.text(...shape.token)
    if (token === undefined) throw refusal('has no token: nobody could claim it')
    if (!/^[\x21-\x7e]{1,512}$/.test(token))
      throw refusal(
        'has a token that no client can send: at most 512 printable characters, no blanks',
      )
    const read = shape.read(column.text, serial, rules)
    if (!isThingName(read.thingName))
      throw refusal(
        'has a thing name that AWS IoT refuses: 1 to 128 letters, digits or any of : _ -',
      )
    if (read.policyName !== undefined && !/^[\w+=,.@-]{1,128}$/.test(read.policyName))
      throw refusal('has a policy name that AWS IoT refuses')
    return { ok: true, row: { deviceSerial, token, ...read } }
  } catch (error) {
    if (!isRefusal(error)) throw error
    return { ok: false, reason: error.message, ...(deviceSerial !== undefined && { deviceSerial }) }
  }
}

function columnsOf(fields: Fields): { all: Readonly<Record<string, unknown>>; text: Column } {
  const all: Record<string, unknown> = Object.create(null)
  for (const [name, value] of Object.entries(fields)) {
    const lower = name.trim().toLowerCase()
    if (lower in all) throw refusal(`has the column ${printable(name)} twice`)
    all[lower] = value
  }
  return {
    all,
    text(...names) {
      const name = names.find((one) => one.toLowerCase() in all)
      const text = name && textOf(all[name.toLowerCase()], name)
      return text === undefined || text === '' ? undefined : text
    },
  }
}

const printable = (name: string): string => name.replaceAll(/[^\x21-\x7e]/g, '?').slice(0, 40)

/** What stands in a column. `NULL` and `\N` are how MySQL writes null into a file. */
function textOf(value: unknown, name: string): string | undefined {
  if (value === null || value === undefined || value === 'NULL' || value === '\\N') return undefined
  if (typeof value === 'string') return value.trim()
  if (typeof value === 'boolean') return value ? '1' : '0'
  if (typeof value === 'number') {
    if (Number.isSafeInteger(value)) return String(value)
    throw refusal(`has a number in ${name} that is not exact; write it as a text`)
  }
  const [[type, inner] = [], more] = Object.entries(value as object)
  if (more === undefined && (type === 'S' || type === 'N') && typeof inner === 'string')
    return textOf(inner, name)
  if (more === undefined && type === 'BOOL' && typeof inner === 'boolean')
    return textOf(inner, name)
  if (more === undefined && type === 'NULL') return undefined
  throw refusal(`has something in ${name} that is neither text, number nor yes or no`)
}

/** 1 or 0, however it is said. */
function flag(column: Column, name: string, missing?: boolean): boolean {
  const said = column(name)?.toLowerCase()
  if (said === undefined && missing !== undefined) return missing
  if (said === '1' || said === 'true' || said === 'yes') return true
  if (said === '0' || said === 'false' || said === 'no') return false
  throw refusal(said === undefined ? `has no ${name}` : `has an ${name} that is neither 0 nor 1`)
}

/** An ARN of a certificate ends in its id. */
const certificateIdIn = (arn: string): string =>
  /:cert\/([0-9a-f]{64})$/.exec(arn)?.[1] ?? vendedElsewhere
