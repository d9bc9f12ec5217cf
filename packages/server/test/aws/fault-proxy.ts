/**
 * An HTTP proxy in front of an AWS emulator that knows which operation each request is, keeps a record of
 * them, and fails them on purpose: before AWS sees the call, by throttling, or by losing AWS's answer.
 */
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

export type Fault =
  /** 500, and AWS has not seen the call. */
  | 'fails'
  /** ThrottlingException, and AWS has not seen the call. */
  | 'throttles'
  /** AWS has done it; the connection breaks before its answer. */
  | 'loses the answer'

export interface Call {
  readonly operation: string
  readonly fault?: Fault
}

export interface FaultProxy {
  readonly url: string
  /** Every call since the last `begin`, oldest first. */
  readonly calls: readonly Call[]
  /** Forgets the calls; `faults` is asked for each new one, by its number from 0. */
  begin(faults?: (number: number, operation: string) => Fault | undefined): void
  close(): Promise<void>
}

/** Method and path of AWS IoT's REST interface, as its API reference has them. */
const operations: readonly (readonly [method: string, path: RegExp, operation: string])[] = [
  ['PUT', /^\/thing-groups\/addThingToThingGroup$/, 'AddThingToThingGroup'],
  ['PUT', /^\/target-policies\/[^/]+$/, 'AttachPolicy'],
  ['POST', /^\/target-policies\/[^/]+$/, 'DetachPolicy'],
  ['PUT', /^\/things\/[^/]+\/principals$/, 'AttachThingPrincipal'],
  ['DELETE', /^\/things\/[^/]+\/principals$/, 'DetachThingPrincipal'],
  ['POST', /^\/certificates$/, 'CreateCertificateFromCsr'],
  ['GET', /^\/certificates$/, 'ListCertificates'],
  ['POST', /^\/policies\/[^/]+$/, 'CreatePolicy'],
  ['POST', /^\/things\/[^/]+$/, 'CreateThing'],
  ['GET', /^\/things\/[^/]+$/, 'DescribeThing'],
  ['PATCH', /^\/things\/[^/]+$/, 'UpdateThing'],
  ['POST', /^\/thing-types\/[^/]+$/, 'CreateThingType'],
  ['DELETE', /^\/certificates\/[^/]+$/, 'DeleteCertificate'],
  ['GET', /^\/certificates\/[^/]+$/, 'DescribeCertificate'],
  ['PUT', /^\/certificates\/[^/]+$/, 'UpdateCertificate'],
  ['GET', /^\/endpoint$/, 'DescribeEndpoint'],
  ['POST', /^\/attached-policies\/[^/]+$/, 'ListAttachedPolicies'],
  ['GET', /^\/principals\/things$/, 'ListPrincipalThings'],
  ['POST', /^\/certificate\/register$/, 'RegisterCertificate'],
  ['POST', /^\/certificate\/register-no-ca$/, 'RegisterCertificateWithoutCA'],
  ['POST', /^\/cacertificate$/, 'RegisterCACertificate'],
  ['GET', /^\/cacertificate\/[^/]+$/, 'DescribeCACertificate'],
  ['PUT', /^\/cacertificate\/[^/]+$/, 'UpdateCACertificate'],
  ['GET', /^\/registrationcode$/, 'GetRegistrationCode'],
]

function operationOf({ method, url = '' }: IncomingMessage): string {
  const path = url.split('?')[0] ?? ''
  const found = operations.find(([verb, pattern]) => verb === method && pattern.test(path))
  return found?.[2] ?? `${method} ${path}`
}

export async function startFaultProxy(target: string): Promise<FaultProxy> {
  let calls: Call[] = []
  let faults: (number: number, operation: string) => Fault | undefined = () => undefined

  const refuse = (outgoing: ServerResponse, status: number, type: string) => {
    outgoing.writeHead(status, { 'content-type': 'application/json', 'x-amzn-errortype': type })
    outgoing.end(JSON.stringify({ message: 'on purpose' }))
  }

  const server = createServer((incoming, outgoing): void => {
    const operation = operationOf(incoming)
    const fault = faults(calls.length, operation)
    calls.push({ operation, ...(fault && { fault }) })
    if (fault === 'fails') {
      incoming.resume()
      refuse(outgoing, 500, 'InternalFailureException')
      return
    }
    if (fault === 'throttles') {
      incoming.resume()
      refuse(outgoing, 400, 'ThrottlingException')
      return
    }
    const { method, url, headers } = incoming
    const onward = request(new URL(url ?? '/', target), { method, headers }, (answer) => {
      const chunks: Buffer[] = []
      answer.on('data', (chunk: Buffer) => chunks.push(chunk))
      answer.on('end', () => {
        if (fault === 'loses the answer') {
          outgoing.destroy()
          return
        }
        outgoing.writeHead(answer.statusCode ?? 500, answer.headers)
        outgoing.end(Buffer.concat(chunks))
      })
    })
    onward.on('error', () => outgoing.destroy())
    incoming.pipe(onward)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    get calls() {
      return calls
    },
    begin(next = () => undefined) {
      calls = []
      faults = next
    },
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}
