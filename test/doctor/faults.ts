/**
 * What `certvend doctor` must find: faults, each with the check that must be named first; pairs of
 * faults, both of which must be found; and healthy set-ups, in which nothing may be found.
 *
 * Written before doctor was. Every fault is put in from outside, by files, processes, servers,
 * networks and clocks; nothing in the command knows that it is being tested.
 */

/** The checks by which faults are named, causes before their consequences. */
export type Expected =
  | 'configuration'
  | 'clock'
  | 'store-safety'
  | 'store'
  | 'key'
  | 'file-modes'
  | 'file-system'
  | 'disk'
  | 'inodes'
  | 'certificate'
  | 'vending-url'
  | 'pins'
  | 'pin-expiry'
  | 'serial'
  | 'token'
  | 'network'
  | 'dns'
  | 'route'
  | 'proxy'
  | 'captive-portal'
  | 'vending-port'
  | 'vending-tls'
  | 'dialect'
  | 'vending-server'
  | 'claim'
  | 'pending'
  | 'mqtt-port'
  | 'mqtt-tls'
  | 'session'
  | 'publish'
  | 'client-id'
  | 'writer'
  | 'version'
  | 'consumers'

export interface Fault {
  /** What a person would say is wrong. */
  readonly what: string
  /** How it is put in. */
  readonly by: string
  /** The check that must be named first. */
  readonly expected: Expected
}

export const faults = {
  'clock-1970': {
    what: 'an enrolled gateway boots without a battery clock',
    by: 'libfaketime: 1970',
    expected: 'clock',
  },
  'clock-behind': {
    what: 'on first boot the clock is two days behind',
    by: 'libfaketime: two days ago, before the certificates begin',
    expected: 'clock',
  },
  'clock-ahead-first-boot': {
    what: 'on first boot the clock is ten years ahead',
    by: 'libfaketime: in ten years',
    expected: 'clock',
  },
  'clock-ahead-enrolled': {
    what: 'the clock of an enrolled gateway is ten years ahead',
    by: 'libfaketime: in ten years',
    expected: 'clock',
  },
  'clock-an-hour-off': {
    what: 'the clock is an hour ahead, and every certificate is valid all the same',
    by: 'libfaketime: in an hour',
    expected: 'clock',
  },
  'unknown-key': {
    what: 'a key in agent.toml is misspelt',
    by: 'file: sever = "…"',
    expected: 'configuration',
  },
  'broken-toml': {
    what: 'a quotation mark is missing in agent.toml',
    by: 'file: url = "https://…',
    expected: 'configuration',
  },
  'url-without-tls': {
    what: 'the URL begins with http://',
    by: 'file: url = "http://…"',
    expected: 'vending-url',
  },
  'pin-missing': {
    what: 'the pin file is not there',
    by: 'file: removed',
    expected: 'pins',
  },
  'pin-leaf': {
    what: 'the server certificate itself is pinned, not its CA',
    by: 'file: an end-entity certificate',
    expected: 'pins',
  },
  'pin-empty': {
    what: 'the pin file is empty',
    by: 'file: truncated',
    expected: 'pins',
  },
  'pin-expired': {
    what: 'the only pin has expired',
    by: 'file: a CA certificate of 2020',
    expected: 'pin-expiry',
  },
  'pin-sibling': {
    what: 'another CA of the same root is pinned',
    by: 'server: its certificate comes from the sibling intermediate',
    expected: 'vending-tls',
  },
  'token-missing': {
    what: 'the token file is not there on first boot',
    by: 'file: removed',
    expected: 'token',
  },
  'token-of-two-lines': {
    what: 'the token file holds something else as well',
    by: 'file: two lines',
    expected: 'token',
  },
  'token-open': {
    what: 'everybody may read the token file',
    by: 'file: mode 0644',
    expected: 'file-modes',
  },
  'serial-placeholder': {
    what: 'the board says "To be filled by O.E.M."',
    by: 'file: the serial',
    expected: 'serial',
  },
  'serial-of-another': {
    what: 'the store holds the credential of another device',
    by: 'file: another serial in agent.toml',
    expected: 'serial',
  },
  'store-open': {
    what: 'everybody may write to the state directory',
    by: 'file: mode 0777',
    expected: 'store-safety',
  },
  'store-of-another-user': {
    what: 'the state directory belongs to another user',
    by: 'file: owner; the command runs without rights',
    expected: 'store-safety',
  },
  'key-open': {
    what: 'the group may read the private key',
    by: 'file: mode 0640',
    expected: 'file-modes',
  },
  'key-damaged': {
    what: 'the private key is cut short',
    by: 'file: truncated',
    expected: 'store',
  },
  'key-of-another-certificate': {
    what: 'the key and the certificate come from two restores',
    by: 'file: the key replaced, and its digest with it',
    expected: 'key',
  },
  'disk-full': {
    what: 'the disk of the state directory is full',
    by: 'tmpfs filled to the last block',
    expected: 'disk',
  },
  'inodes-gone': {
    what: 'the file system has room, and no inode left',
    by: 'tmpfs with few inodes, all taken',
    expected: 'inodes',
  },
  'disk-read-only': {
    what: 'the disk went read-only',
    by: 'tmpfs remounted read-only',
    expected: 'file-system',
  },
  'certificate-expired': {
    what: 'the certificate expired while the gateway lay in store',
    by: 'file: a store whose certificate ended in 2021; the clock is right',
    expected: 'certificate',
  },
  'store-held': {
    what: 'a forgotten process holds the state directory and does not answer',
    by: 'flock(1) on its lock',
    expected: 'writer',
  },
  'daemon-suspended': {
    what: 'the daemon hangs',
    by: 'SIGSTOP',
    expected: 'writer',
  },
  'no-network': {
    what: 'the cable is out',
    by: 'network namespace with a loopback alone',
    expected: 'network',
  },
  'no-route': {
    what: 'there is no way out of the local network',
    by: 'network namespace without a default route',
    expected: 'route',
  },
  'name-server-dead': {
    what: 'the name server does not answer',
    by: 'network namespace whose resolv.conf names nobody',
    expected: 'dns',
  },
  'name-unknown': {
    what: 'the host in the URL is misspelt',
    by: 'name server that answers NXDOMAIN',
    expected: 'dns',
  },
  'vending-refuses': {
    what: 'nothing listens at the vending URL',
    by: 'server: closed',
    expected: 'vending-port',
  },
  'vending-swallowed': {
    what: 'a firewall drops what goes to the vending server',
    by: 'nftables: drop',
    expected: 'vending-port',
  },
  'broker-down': {
    what: 'the broker is down',
    by: 'server: closed',
    expected: 'mqtt-port',
  },
  'port-8883-closed': {
    what: 'the network lets out 443 and not 8883',
    by: 'nftables: drop to 8883',
    expected: 'mqtt-port',
  },
  'proxy-down': {
    what: 'HTTPS_PROXY names a proxy that does not run',
    by: 'environment',
    expected: 'proxy',
  },
  'proxy-wants-credentials': {
    what: 'the proxy wants credentials that HTTPS_PROXY does not hold',
    by: 'proxy: 407',
    expected: 'proxy',
  },
  'proxy-forbids-8883': {
    what: 'the proxy lets CONNECT go to 443 only',
    by: 'proxy: 403 to 8883',
    expected: 'proxy',
  },
  'proxy-is-no-url': {
    what: 'HTTPS_PROXY is not a URL of a proxy',
    by: 'environment: socks5://…',
    expected: 'proxy',
  },
  'portal-with-its-own-name': {
    what: 'a captive portal answers with its own certificate',
    by: 'server: a certificate for login.hotel.example',
    expected: 'captive-portal',
  },
  'portal-without-tls': {
    what: 'a captive portal answers in HTTP where TLS is expected',
    by: 'server: an HTTP redirect on the port',
    expected: 'captive-portal',
  },
  inspection: {
    what: 'a firewall inspects TLS',
    by: 'server: the right name, issued by a CA of its own',
    expected: 'vending-tls',
  },
  'vending-certificate-expired': {
    what: "the vending server's certificate has expired",
    by: 'server: a certificate of 2020 from the pinned CA',
    expected: 'vending-tls',
  },
  'vending-certificate-misnamed': {
    what: "the vending server's certificate is for another name",
    by: 'server: a certificate for another host from the pinned CA',
    expected: 'vending-tls',
  },
  'web-page': {
    what: 'a reverse proxy shows a web page at the URL',
    by: 'server: text/html behind the right certificate',
    expected: 'dialect',
  },
  'another-dialect': {
    what: 'an old vending machine answers, which speaks another dialect',
    by: 'server: JSON of the machine of 2018 behind the right certificate',
    expected: 'dialect',
  },
  'vending-busy': {
    what: 'the vending server is overloaded',
    by: 'server: 503 with Retry-After',
    expected: 'vending-server',
  },
  'claim-unknown': {
    what: 'the vending server does not know the serial',
    by: 'server: no such device; the daemon has asked',
    expected: 'claim',
  },
  'claim-spent': {
    what: 'the claim was used with another key',
    by: 'file: the state directory was lost; the daemon has asked again',
    expected: 'claim',
  },
  deferred: {
    what: 'an operator has yet to approve the device',
    by: 'server: 202; the daemon has asked',
    expected: 'pending',
  },
  'certificate-inactive': {
    what: 'the certificate was made INACTIVE',
    by: 'registry: the device is disabled',
    expected: 'session',
  },
  'publish-forbidden': {
    what: 'the policy allows the connection, and not the status topic',
    by: 'broker: closes on PUBLISH, as IoT Core does',
    expected: 'publish',
  },
  'client-id-twice': {
    what: 'a cloned disk image connects with the same thing name',
    by: 'another client with the same credential, which comes back at once',
    expected: 'client-id',
  },
  'broker-of-another-ca': {
    what: "the broker's certificate comes from a CA that is not among the trust anchors",
    by: 'broker: another CA',
    expected: 'mqtt-tls',
  },
  'broker-without-tls': {
    what: 'the broker listens without TLS',
    by: 'mosquitto without a certificate',
    expected: 'mqtt-tls',
  },
  'broker-silent': {
    what: 'the broker accepts connections and says nothing',
    by: 'server: listens, never answers',
    expected: 'mqtt-tls',
  },
  'version-skew': {
    what: 'the package was upgraded and the daemon was not restarted',
    by: 'a daemon of another version, started from a copy',
    expected: 'version',
  },
  'consumer-not-well': {
    what: 'a program that is given the certificate does not start with it',
    by: 'a consumer whose command ends with exit code 1; a round was run',
    expected: 'consumers',
  },
} as const satisfies Readonly<Record<string, Fault>>

export type FaultName = keyof typeof faults

/** Two faults at once, neither of which causes the other; both must be found. */
export const doubles: readonly (readonly [FaultName, FaultName])[] = [
  ['clock-1970', 'key-open'],
  ['disk-full', 'broker-down'],
  ['token-open', 'vending-refuses'],
  ['token-missing', 'pin-sibling'],
  ['proxy-wants-credentials', 'token-of-two-lines'],
  ['version-skew', 'broker-down'],
  ['certificate-expired', 'vending-refuses'],
  ['serial-of-another', 'broker-of-another-ca'],
  ['pin-expired', 'serial-placeholder'],
  ['portal-without-tls', 'token-open'],
]

/** Set-ups in which everything is as it must be. */
export const healthy = {
  online: 'the daemon runs and is online',
  stopped: 'enrolled, and the daemon does not run',
  'first-boot': 'not enrolled yet, and everything is at hand for it',
  'claim-cleared-away': 'enrolled, and URL, pins and token are gone, as a later boot may find it',
  configured: 'everything in agent.toml, with two pins, the present and the next',
  'behind-a-proxy': 'behind a proxy with credentials, where no other road leads out',
  'ipv6-only': 'a network without IPv4',
  'own-user': 'daemon and command run as a user without rights',
  'root-beside': "root looks at the store of the daemon's user while the daemon runs",
  'group-member': 'somebody of the group asks the daemon, and may not look into its store',
  linked: 'the state directory is a link, as under DynamicUser=',
  'port-443': 'MQTT on port 443 with ALPN',
  'consumer-well': 'a program has its copy of the certificate, and is well with it',
  mosquitto: 'a broker that shares nothing with us',
} as const satisfies Readonly<Record<string, string>>

export type HealthyName = keyof typeof healthy
