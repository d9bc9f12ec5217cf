/**
 * Who this device is and where it connects, as the examples take it from the command line:
 *
 *     ENDPOINT STATE_DIRECTORY                                what `certvend enroll`, or another example, stored
 *     ENDPOINT THING_NAME CERTIFICATE.pem PRIVATE-KEY.pem     what a factory or the AWS console made
 *
 * ENDPOINT is `host` or `host:port`. `--anchors CA.pem` names who vouches for a broker of your own;
 * without it Amazon's roots do, or, where ENDPOINT is the stored credential's own, the stored ones.
 */
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import {
  type Credential,
  createCredential,
  createEndpoint,
  isCertvendError,
  openCredentialStore,
} from '@certvend/client'

/** Command-line arguments, options taken out. */
export interface Arguments {
  readonly positionals: readonly string[]
  /** PEM. */
  readonly anchors: string | undefined
}

export function readArguments(args: readonly string[] = process.argv.slice(2)): Arguments {
  const { values, positionals } = parseArgs({
    args: [...args],
    options: { anchors: { type: 'string' } },
    allowPositionals: true,
  })
  return { positionals, anchors: values.anchors && readFileSync(values.anchors, 'utf8') }
}

/** The identity that the arguments name; without the right number of them, ends with the usage. */
export async function readIdentity(name: string): Promise<Credential> {
  const { positionals, anchors } = readArguments()
  const [address, where, certificate, privateKey] = positionals
  if (!address || !where || (positionals.length !== 2 && positionals.length !== 4)) {
    console.error(`usage: node ${name}.js [--anchors CA.pem] ENDPOINT STATE_DIRECTORY
       node ${name}.js [--anchors CA.pem] ENDPOINT THING_NAME CERTIFICATE.pem PRIVATE-KEY.pem`)
    process.exit(2)
  }
  if (certificate && privateKey)
    return createCredential({
      thingName: where,
      certificateChain: readFileSync(certificate, 'utf8'),
      privateKey: readFileSync(privateKey, 'utf8'),
      endpoint: createEndpoint(address, anchors),
    })
  const stored = (await openCredentialStore(where, { readOnly: true })).current()
  if (!stored) throw new Error(`no credential in ${where}; run: certvend enroll`)
  const endpoint = createEndpoint(address, anchors)
  if (anchors === undefined && endpoint.host === stored.endpoint.host)
    return { ...stored, endpoint: { ...endpoint, trustAnchors: stored.endpoint.trustAnchors } }
  return { ...stored, endpoint }
}

/** Runs an example; what goes wrong is said in words, with the hint where there is one. */
export async function main(example: () => Promise<void>): Promise<void> {
  try {
    await example()
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error))
    if (isCertvendError(error)) console.error(`hint: ${error.hint}`)
    process.exitCode = 1
  }
}
