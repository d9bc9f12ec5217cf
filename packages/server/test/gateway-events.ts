/** Events as API Gateway makes them, in the formats of its documentation. */

export interface Sent {
  readonly method?: string
  /** As the caller wrote it, with the stage or the base path. */
  readonly path: string
  readonly query?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string
  readonly base64?: boolean
  readonly sourceIp?: string
  readonly stage?: string
  /** PEM, as API Gateway shows it where its domain asks for mutual TLS. */
  readonly clientCertificate?: string
}

const encoded = ({ body, base64 }: Sent) => ({
  ...(body !== undefined && { body: base64 ? Buffer.from(body).toString('base64') : body }),
  isBase64Encoded: base64 === true,
})

/** Payload format 2.0: an HTTP API. `rawPath` holds the stage, unless it is `$default`. */
export const httpApiEvent = (sent: Sent) => ({
  version: '2.0',
  routeKey: '$default',
  rawPath: sent.path,
  rawQueryString: sent.query ?? '',
  headers: { host: 'abc123.execute-api.eu-west-1.amazonaws.com', ...sent.headers },
  requestContext: {
    accountId: '123456789012',
    apiId: 'abc123',
    domainName: 'abc123.execute-api.eu-west-1.amazonaws.com',
    http: {
      method: sent.method ?? 'GET',
      path: sent.path,
      protocol: 'HTTP/1.1',
      sourceIp: sent.sourceIp ?? '198.51.100.7',
      userAgent: 'certvend',
    },
    ...(sent.clientCertificate && {
      authentication: { clientCert: { clientCertPem: sent.clientCertificate } },
    }),
    requestId: 'JKJaXmPLvHcESHA=',
    routeKey: '$default',
    stage: sent.stage ?? '$default',
    timeEpoch: 1_900_000_000_000,
  },
  ...encoded(sent),
})

/** Payload format 1.0: a REST API. `path` holds a custom domain's base path, never the stage. */
export const restApiEvent = (sent: Sent) => {
  const several = (entries: Iterable<[string, string]>) => {
    const lists: Record<string, string[]> = {}
    for (const [name, value] of entries) lists[name] = [...(lists[name] ?? []), value]
    return lists
  }
  const headers = { Host: 'abc123.execute-api.eu-west-1.amazonaws.com', ...sent.headers }
  const query = [...new URLSearchParams(sent.query ?? '')] as [string, string][]
  return {
    resource: '/{proxy+}',
    path: sent.path,
    httpMethod: sent.method ?? 'GET',
    headers,
    multiValueHeaders: several(Object.entries(headers)),
    queryStringParameters: query.length > 0 ? Object.fromEntries(query) : null,
    multiValueQueryStringParameters: query.length > 0 ? several(query) : null,
    pathParameters: { proxy: sent.path.slice(1) },
    stageVariables: null,
    requestContext: {
      accountId: '123456789012',
      apiId: 'abc123',
      stage: sent.stage ?? 'LATEST',
      path: `/${sent.stage ?? 'LATEST'}${sent.path}`,
      httpMethod: sent.method ?? 'GET',
      identity: {
        sourceIp: sent.sourceIp ?? '198.51.100.7',
        userAgent: 'certvend',
        ...(sent.clientCertificate && { clientCert: { clientCertPem: sent.clientCertificate } }),
      },
      requestId: 'c6af9ac6-7b61-11e6-9a41-93e8deadbeef',
    },
    body: null,
    ...encoded(sent),
  }
}
