/**
 * Judges x509-limbo's cases by the client's own TLS options: serves each case's chain with its key
 * on loopback and connects, expecting the case's name. Prints one JSON line per case.
 *
 * A process of its own, because the clock that TLS reads can only be moved for a whole process.
 *
 *     node limbo-client.mjs VECTORS ID… (the ids on standard input, one per line)
 */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:tls'
import { gunzipSync } from 'node:zlib'

const { parseTrustAnchors, tlsOptions } = await import(
  new URL('trust.js', import.meta.resolve('@certvend/client'))
)

const wanted = new Set(readFileSync(0, 'utf8').split('\n'))
const { testcases } = JSON.parse(gunzipSync(readFileSync(process.argv[2])))

async function judge(one) {
  let anchors
  try {
    anchors = parseTrustAnchors(one.trusted_certs)
  } catch (error) {
    return { verdict: 'rejected', because: error.message }
  }
  const server = createServer({
    cert: [one.peer_certificate, ...one.untrusted_intermediates].join('\n'),
    key: one.peer_certificate_key,
    ciphers: 'DEFAULT@SECLEVEL=0', // also what no decent server would show
  })
  server.on('secureConnection', (socket) => socket.on('error', () => {}))
  server.on('tlsClientError', () => {})
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const socket = connect({
    ...tlsOptions(anchors, one.expected_peer_name.value),
    host: '127.0.0.1',
    port: server.address().port,
  })
  try {
    await once(socket, 'secureConnect')
    return { verdict: 'accepted' }
  } catch (error) {
    return { verdict: 'rejected', because: error.code }
  } finally {
    socket.destroy()
    server.close()
  }
}

for (const one of testcases)
  if (wanted.has(one.id)) console.log(JSON.stringify({ id: one.id, ...(await judge(one)) }))
