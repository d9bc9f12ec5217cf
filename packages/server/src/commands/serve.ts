/** `certvend-server serve`: the vending machine on embedded defaults. */
import type { Command } from 'commander'
import type { ServeOptions } from '../serve.ts'
import type { Terminal } from '../terminal.ts'
import { alpnProtocol, hostName, legacyRoute, port, wholeNumber } from './arguments.ts'
import { addIssuerOptions, chosenIssuer } from './issuer.ts'
import { withRegistry } from './registry.ts'

const examples = `
On first use this makes, in the data directory, the CA that issues device certificates and a
server certificate under an intermediate CA of its own; tls/pin.pem is what devices pin.

  $ certvend-server serve --host vending.example.com

Behind a certificate of your own, for devices that connect to AWS IoT Core:

  $ certvend-server serve --tls-cert chain.pem --tls-key key.pem \\
      --mqtt-host abc-ats.iot.eu-west-1.amazonaws.com --mqtt-anchors AmazonRootCA1.pem

For AWS IoT Core, which tells where devices connect; by certification request, or with a CA of your own
(see 'ca --help'), whose certificates are registered here, or register themselves:

  $ certvend-server serve --host vending.example.com --issuer aws-iot
  $ certvend-server serve --host vending.example.com --issuer aws-iot-own-ca --certificate-days 90
  $ certvend-server serve --host vending.example.com --issuer aws-iot-jitr

For devices in the field that still ask like an older vending machine (awslabs-2018, awslabs-2020,
iot-atlas, gateway-2021, express-2017), at the URLs they know, until they have new firmware:

  $ certvend-server serve --host vending.example.com --legacy awslabs-2020

With the registry in a database, which several servers may share (see 'registry --help'):

  $ certvend-server serve --host vending.example.com --registry dynamodb:deviceInfo
  $ certvend-server serve --host vending.example.com \\
      --registry mysql://certvend@db.example.com/certvend?ca=/etc/certvend-server/db-ca.pem \\
      --registry-password-file /etc/certvend-server/registry-password

One JSON line per event goes to standard output; SIGTERM ends it cleanly.
`

export function addServeCommand(program: Command, terminal: Terminal): void {
  addIssuerOptions(
    withRegistry(program.command('serve')).description(
      'run the vending machine until it is told to stop',
    ),
  )
    .option(
      '--host <name>',
      'a name or address that devices reach this server by; may be repeated',
      (name: string, names: string[]) => [...names, hostName(name)],
      [],
    )
    .option('--listen <address>', 'address to listen on (default: every address)')
    .option('--port <port>', 'port to listen on; 0 takes a free one', port, 8443)
    .option('--tls-cert <file>', "the server's certificate chain, PEM, end entity first")
    .option('--tls-key <file>', 'its private key, PEM')
    .option(
      '--mqtt-host <name>',
      'MQTT server to hand to devices (default: the first --host)',
      hostName,
    )
    .option('--mqtt-port <port>', 'its port', port, 8883)
    .option(
      '--mqtt-alpn <protocol>',
      'ALPN protocol to ask for, such as x-amzn-mqtt-ca',
      alpnProtocol,
    )
    .option('--mqtt-anchors <file>', 'the CAs that vouch for it, PEM (default: tls/root.pem)')
    .option('--certificate-days <days>', 'how long device certificates last', wholeNumber, 365)
    .option(
      '--legacy <name>',
      'also stand in for an old vending machine; may be repeated, NAME=/PREFIX for one path only',
      legacyRoute,
      [],
    )
    .option(
      '--legacy-http-listen <address>',
      'address for express-2017, which has no TLS: anyone on that network can read and forge it',
      hostName,
      '127.0.0.1',
    )
    .option('--legacy-http-port <port>', 'its port', port, 3000)
    .option(
      '--watch-listen <address>',
      'address for /metrics, /healthz and /readyz, which have no TLS',
      hostName,
      '127.0.0.1',
    )
    .option('--watch-port <port>', 'their port; 0 takes a free one (default: 9464)', port)
    .addHelpText('after', examples)
    .action(async (options: ServeOptions) => {
      const { serve } = await import('../serve.ts') // its libraries are slow to load, and only needed here
      await serve({ ...options, issuer: chosenIssuer(options, terminal) }, terminal)
    })
}
