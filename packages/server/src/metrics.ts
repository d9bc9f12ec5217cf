/**
 * What Prometheus reads of `serve`, counted from the events of the log, so that nothing is told twice;
 * and the small door on this machine where it reads it.
 *
 * Labels have few values, all of them ours: no serial, no address, no path that a caller chose.
 */
import { X509Certificate } from 'node:crypto'
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client'
import type { Handler } from './handler.ts'
import type { Log, LogEvent } from './log.ts'

export interface Metrics {
  /** The same log, and everything that goes through it is counted. */
  counting(log: Log): Log
  /** The certificate that the server shows from now on. */
  serverCertificate(pem: string): void
  /** In Prometheus' text format. */
  text(): Promise<string>
}

/**
 * @param legacy requests at the old URLs since the start, by dialect
 */
export function createMetrics(
  legacy: () => ReadonlyMap<string, { readonly accepted: number; readonly refused: number }>,
): Metrics {
  const registry = new Registry()
  const registers = [registry]
  collectDefaultMetrics({ register: registry })
  const requests = new Counter({
    name: 'certvend_requests_total',
    help: 'Requests answered, by operation and HTTP status.',
    labelNames: ['operation', 'status'],
    registers,
  })
  const durations = new Histogram({
    name: 'certvend_request_duration_seconds',
    help: 'From a whole request to its answer, by operation.',
    labelNames: ['operation'],
    buckets: [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
    registers,
  })
  const certificates = new Counter({
    name: 'certvend_certificates_handed_out_total',
    help: 'Certificates handed out, repeated answers included.',
    registers,
  })
  const refusals = new Counter({
    name: 'certvend_refusals_total',
    help: 'Requests refused, by problem.',
    labelNames: ['problem'],
    registers,
  })
  const alarms = new Counter({
    name: 'certvend_alarms_total',
    help: 'Events that call for a person, by name.',
    labelNames: ['event'],
    registers,
  })
  const failures = new Counter({
    name: 'certvend_failures_total',
    help: 'Failures of this server or of what it needs, by operation.',
    labelNames: ['operation'],
    registers,
  })
  const expiry = new Gauge({
    name: 'certvend_server_certificate_expiry_timestamp_seconds',
    help: "When the server's own TLS certificate ends.",
    registers,
  })
  new Gauge({
    name: 'certvend_legacy_requests',
    help: 'Requests at the URLs of old vending machines since the start, by dialect and outcome.',
    labelNames: ['dialect', 'outcome'],
    registers,
    collect() {
      for (const [dialect, { accepted, refused }] of legacy()) {
        this.set({ dialect, outcome: 'accepted' }, accepted)
        this.set({ dialect, outcome: 'refused' }, refused)
      }
    },
  })

  const count = (event: LogEvent): void => {
    const { operation = 'unknown' } = event
    if (event.event === 'request') {
      requests.inc({ operation, status: String(event.status) })
      durations.observe({ operation }, (event.durationMs ?? 0) / 1000)
    }
    if (event.event === 'enrolled') certificates.inc()
    if (event.event === 'refused') refusals.inc({ problem: event.problem ?? 'unknown' })
    if (event.level === 'alarm') alarms.inc({ event: event.event })
    if (event.level === 'error') failures.inc({ operation })
  }

  return {
    counting: (log) => (event) => {
      count(event)
      log(event)
    },
    serverCertificate: (pem) => expiry.set(Date.parse(new X509Certificate(pem).validTo) / 1000),
    text: () => registry.metrics(),
  }
}

/**
 * The door for those who watch: `/metrics`; `/healthz`, whether the process answers; `/readyz`, whether
 * it should be sent requests. Plain HTTP, so it belongs on loopback.
 */
export function createWatchDoor(metrics: Metrics, isReady: () => Promise<boolean>): Handler {
  const answer = (status: number, body: string, type = 'text/plain; charset=utf-8') =>
    new Response(body, { status, headers: { 'content-type': type, 'cache-control': 'no-store' } })
  return async ({ method, url }) => {
    if (method !== 'GET' && method !== 'HEAD') return answer(405, 'only GET is allowed\n')
    const { pathname } = new URL(url)
    if (pathname === '/healthz') return answer(200, 'ok\n')
    if (pathname === '/readyz') {
      const ready = await isReady().catch(() => false)
      return ready ? answer(200, 'ready\n') : answer(503, 'not ready\n')
    }
    return pathname === '/metrics'
      ? answer(200, await metrics.text(), 'text/plain; version=0.0.4; charset=utf-8')
      : answer(404, 'there is /metrics, /healthz and /readyz\n')
  }
}
