/** `certvend config check`: what a run would work with, judged without making or sending anything. */
import fs from 'node:fs'
import { openCredentialStore, systemClock } from '@certvend/client'
import { outlookOf } from '../due.ts'
import { readEnrollment, refuseExpiredPins, waysOf } from '../enrollment.ts'
import type { ExitCode } from '../failure.ts'
import { proxyPlace } from '../proxy.ts'
import { readSerial } from '../serial.ts'
import { type Flags, gatewayPlaces, resolveSettings, type Settings } from '../settings.ts'
import { describeRenewal, renewalInWords } from '../status.ts'
import type { Terminal } from '../terminal.ts'
import { findToken, serviceToken } from '../token.ts'
import { day } from '../wording.ts'

/** @throws a configuration error, the first that is found; one of the store */
export async function configCheck(
  flags: Flags,
  terminal: Terminal,
  environment: NodeJS.ProcessEnv = process.env,
): Promise<ExitCode> {
  const settings = await resolveSettings(flags, environment)
  const row = (name: string, value: string): string => `${name.padEnd(12)}${value}`
  const proxy = proxyPlace(environment)
  const store = await openCredentialStore(settings.stateDirectory, { readOnly: true })
  const current = store.current()
  const lines = [
    row('file', settings.configFile ?? 'none'),
    row('state', settings.stateDirectory),
    row(
      'credential',
      current
        ? `of ${current.deviceSerial}, valid until ${day(current.notAfter)}: nobody is asked for another until it is time`
        : 'none: a certificate is asked for',
    ),
  ]
  if (current) {
    const now = systemClock.now()
    const renewal = describeRenewal(outlookOf(current, waysOf(settings), now))
    lines.push(row('renews', renewalInWords(renewal, now).join('; ')))
  }
  if (proxy !== undefined) lines.push(row('proxy', `${proxy} (HTTPS_PROXY)`))
  if (!current) {
    const asked = withToken(settings, environment)
    const enrollment = readEnrollment(asked, environment)
    refuseExpiredPins(enrollment, systemClock.now())
    const { value, from } = readSerial(settings.serial, { environment })
    const token = asked.tokenFile
    lines.push(
      row('url', enrollment.server.url.href),
      ...(settings.dialect.dialect ? [row('dialect', enrollment.server.dialect.name)] : []),
      ...settings.pins.map((pin) => row('pin', pin.value)),
      row('serial', `${value} (${from})`),
      row(
        'token',
        settings.dialect.saltFile
          ? `made of the salt in ${settings.dialect.saltFile.value} (${settings.dialect.tokenFormula?.value})`
          : `in ${token?.value} (${token?.from})`,
      ),
    )
  }
  terminal.out(lines.join('\n'))
  return 0
}

/** With the token that the service would find, although nobody hands it to this process. */
function withToken(settings: Settings, environment: NodeJS.ProcessEnv): Settings {
  const { tokenFile, stateDirectory, configFile } = settings
  const service =
    configFile === gatewayPlaces.config && fs.existsSync(serviceToken)
      ? { value: serviceToken, from: 'LoadCredential' }
      : undefined
  const token = tokenFile ?? findToken(stateDirectory, environment) ?? service
  return token ? { ...settings, tokenFile: token } : settings
}
