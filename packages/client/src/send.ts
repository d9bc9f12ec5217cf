/** The seam between protocol and transport: a request, and what came back, in full. */

export interface SendRequest {
  readonly method: 'GET' | 'POST'
  readonly url: URL
  /** The URL holds a secret: nothing may be told of it but host and path. */
  readonly secretUrl?: true
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

/** What came back, in full. */
export interface SendResponse {
  readonly status: number
  /** Names in lower case. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Uint8Array
}

/** How long an exchange may take, and how much may come back. */
export interface SendLimits {
  readonly signal?: AbortSignal
  /** For the whole exchange, connecting included, in milliseconds. */
  readonly deadlineMs: number
  /** Largest reply that is read. */
  readonly replyBytes: number
  /**
   * Must be called once the channel stands, just before the first byte of the request goes; what it
   * throws ends the exchange, with nothing sent. What cannot be asked twice is written down here.
   */
  readonly beforeSend?: () => void
}

/** Moves bytes over a channel and judges nothing. */
export type Send = (request: SendRequest, limits: SendLimits) => Promise<SendResponse>
