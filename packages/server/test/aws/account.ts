/** What an AWS account holds, as a bystander sees it: straight from the emulator, not through our code. */

export interface Held {
  readonly certificateId: string
  readonly certificateArn: string
  readonly status: string
}

export interface Account {
  certificates(): Promise<readonly Held[]>
  /** Certificates attached to a thing that are ACTIVE. */
  active(thingName: string): Promise<readonly string[]>
  policiesOf(certificateArn: string): Promise<readonly string[]>
  thing(thingName: string): Promise<{ attributes: Record<string, string>; thingTypeName?: string }>
  call(
    method: string,
    path: string,
    body?: unknown,
    headers?: object,
  ): Promise<Record<string, unknown>>
}

/** @param region each region is a world of its own */
export function openAccount(url: string, region = 'eu-west-1'): Account {
  const call: Account['call'] = async (method, path, body, headers = {}) => {
    const reply = await fetch(`${url}${path}`, {
      method,
      headers: {
        authorization: `AWS4-HMAC-SHA256 Credential=test/20260101/${region}/iot/aws4_request, SignedHeaders=host, Signature=0`,
        'content-type': 'application/json',
        ...headers,
      },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
    const text = await reply.text()
    if (!reply.ok) throw new Error(`${method} ${path}: ${reply.status} ${text}`)
    return text ? JSON.parse(text) : {}
  }
  const certificates = async () =>
    (await call('GET', '/certificates')).certificates as readonly Held[]
  return {
    call,
    certificates,
    async active(thingName) {
      const { principals } = await call('GET', `/things/${thingName}/principals`).catch(
        (error: Error) => {
          if (error.message.includes(': 404 ')) return { principals: [] } // there is no such thing
          throw error
        },
      )
      const all = await certificates()
      return all
        .filter(({ certificateArn }) => (principals as string[]).includes(certificateArn))
        .filter(({ status }) => status === 'ACTIVE')
        .map(({ certificateId }) => certificateId)
    },
    async policiesOf(arn) {
      const { policies } = await call('POST', `/attached-policies/${encodeURIComponent(arn)}`)
      return (policies as { policyName: string }[]).map(({ policyName }) => policyName)
    },
    thing: (thingName) => call('GET', `/things/${thingName}`) as never,
  }
}
