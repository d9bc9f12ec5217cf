/** Each answer tried, by doctor's own checks, without spending anything. */
import {
  amazonTrustAnchors,
  type Clock,
  createVendingServer,
  type DialectName,
  isCertvendError,
  parseTrustAnchors,
} from '@certvend/client'
import {
  describeCertificate,
  type ShownCertificate,
  traceVendingServer,
  type VendingTrace,
} from '@certvend/client/trace'
import { ownAddresses } from '../addresses.ts'
import { clock as clockCheck } from '../doctor/checks/clock.ts'
import { captivePortal, dns, network, proxy, route } from '../doctor/checks/network.ts'
import { vendingPort, vendingServer, vendingTls } from '../doctor/checks/servers.ts'
import { pinExpiry } from '../doctor/checks/settings.ts'
import { diagnose, type FindingDocument } from '../doctor/diagnosis.ts'
import type { ClaimParts, Evidence } from '../doctor/evidence.ts'
import type { Check } from '../doctor/finding.ts'
import { attempt } from '../doctor/local.ts'
import { proxyPlace } from '../proxy.ts'
import { version } from '../version.ts'

export interface TrialOptions {
  readonly clock: Clock
  readonly environment: NodeJS.ProcessEnv
}

export type Tried<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly finding: FindingDocument }

const deadlineMs = 7000

function judge(
  table: readonly Check[],
  seen: { vending?: VendingTrace; pins?: readonly ShownCertificate[] },
  { clock, environment }: TrialOptions,
): FindingDocument | undefined {
  const { vending, pins = [] } = seen
  const parts: ClaimParts = {
    dialect: { ok: true, value: { name: 'certvend' } },
    pins: pins.length > 0 ? [{ file: '', read: { ok: true, value: [...pins] } }] : [],
    serial: { ok: true, value: '', written: false },
    token: 'absent',
  }
  const evidence: Evidence = {
    now: clock.now(),
    version,
    user: process.getuid?.() ?? 0,
    settings: { ok: true, value: nothing },
    proxy: attempt(() => proxyPlace(environment)),
    openFiles: [],
    parts,
    addresses: ownAddresses() ?? [],
    history: [],
    ...(vending ? { vending } : {}),
  }
  return diagnose(evidence, table).findings[0]
}

const nothing = {
  stateDirectory: '/',
  socketDirectory: '/',
  pins: [],
  serial: { kind: 'default', from: 'the serial' },
  mqtt: {},
  dialect: {},
  renew: 'automatically',
  consumers: [],
} as const

/** Goes the way to `url`; what was shown there, by whomever. */
export async function tryUrl(url: URL, options: TrialOptions): Promise<Tried<VendingTrace>> {
  // Whoever is there need not be vouched for yet, and is not believed.
  const server = createVendingServer({ url, pins: amazonTrustAnchors().pem })
  const trace = await traceVendingServer(server, { clock: options.clock, deadlineMs })
  const unknown =
    isCertvendError(trace.failure, 'ERR_SERVER_UNTRUSTED') && trace.failure.remedy === 'operator'
  const finding = judge(
    [network, dns, route, proxy, captivePortal, vendingPort, ...(unknown ? [] : [vendingTls])],
    unknown ? {} : { vending: trace },
    options,
  )
  return finding ? { ok: false, finding } : { ok: true, value: trace }
}

/** Lets `pins` judge the server at `url`; who vouched, and the dialect that is spoken there. */
export async function tryPins(
  url: URL,
  pins: string,
  options: TrialOptions,
): Promise<
  Tried<{ readonly vouchedBy: ShownCertificate | undefined; readonly dialect: DialectName }>
> {
  const described = parseTrustAnchors(pins).certificates.map((one) => describeCertificate(one))
  const server = createVendingServer({ url, pins })
  const vending = await traceVendingServer(server, { clock: options.clock, deadlineMs })
  const finding = judge(
    [clockCheck, captivePortal, pinExpiry, vendingPort, vendingTls],
    { vending, pins: described },
    options,
  )
  if (finding) return { ok: false, finding }
  const failure = vending.answer?.failure
  if (!failure) return { ok: true, value: { vouchedBy: vending.vouchedBy, dialect: 'certvend' } }
  const busy = judge([vendingServer], { vending }, options)
  if (busy && !/^ERR_(REPLY_MALFORMED|REQUEST_REFUSED)$/.test(failure.code))
    return { ok: false, finding: busy }
  const { probeVendingServer } = await import('@certvend/client/probe')
  const { dialects } = await probeVendingServer({ url, pins }, { deadlineMs, clock: options.clock })
  const [dialect] = dialects
  if (dialect) return { ok: true, value: { vouchedBy: vending.vouchedBy, dialect } }
  return {
    ok: false,
    finding: {
      check: 'dialect',
      docs: 'docs/troubleshooting.md#dialect',
      found: `${url.host} answers in no dialect that is known (${failure.message})`,
      expected: 'a vending machine',
      mend: failure.hint,
      care: 'configure',
    },
  }
}
