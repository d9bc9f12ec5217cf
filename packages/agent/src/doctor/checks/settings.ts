/** Checks of what people wrote: agent.toml, URL, pins, serial, token, and who may read it. */
import { day } from '../../wording.ts'
import { enrolledAs, type Read } from '../evidence.ts'
import { type Check, type Finding, unknown } from '../finding.ts'

const soonMs = 30 * 24 * 3600_000

const mistake = (
  { error }: Extract<Read<unknown>, { ok: false }>,
  expected: string,
  mend: string,
): Finding => ({ found: error.message, expected, mend: error.hint ?? mend, care: 'configure' })

const notNeeded = unknown('not needed: a credential is held')

export const configuration: Check = {
  name: 'configuration',
  symptom: 'Every command ends with exit code 2',
  looks:
    'Whether `agent.toml` can be read, has no key that nobody knows, and names a dialect there is.',
  advice: 'The message names file, line and key; `man certvend.toml` has all of them.',
  judge({ settings, parts }) {
    const wrong = [settings, parts?.dialect].find((read) => read && !read.ok)
    return wrong && !wrong.ok
      ? mistake(wrong, 'a configuration that can be used', 'see man certvend.toml')
      : 'fine'
  },
}

export const fileModes: Check = {
  name: 'file-modes',
  symptom: 'Other users can read the token or the key',
  looks:
    'Whether anybody but their owner can change the configuration and the pins, or read the token and the key.',
  advice:
    '`chmod 600` on token and key, `chmod 644` on the rest. What others may have read is to be replaced: re-arm the device (`certvend-server device rearm SERIAL --revoke`) and enroll again.',
  judge({ openFiles, store, daemon }) {
    const [open] = openFiles
    if (open)
      return {
        found: `${open.who} may ${open.may} ${open.path}`,
        expected: `mode ${open.mode}, or tighter`,
        mend: `chmod ${open.mode} ${open.path}`,
        care: 'configure',
      }
    if (!store) return unknown('no state directory is known')
    const [exposed] = store.exposed
    if (exposed !== undefined)
      return {
        found: `others may read ${store.directory}/${exposed}`,
        expected: 'keys and certificates that their owner alone can read',
        mend: `chmod -R go-rwx ${store.directory}/generations; what was read meanwhile is to be replaced: re-arm the device`,
        care: 'act',
      }
    return store.problem?.code === 'ERR_STORE_UNREADABLE' && daemon?.status
      ? unknown('another user’s state directory')
      : 'fine'
  },
}

export const vendingUrl: Check = {
  name: 'vending-url',
  symptom: 'It does not enroll: the URL is not accepted',
  looks: 'Whether the vending URL is one of https, without credentials, query or fragment.',
  advice: 'Write `url = "https://HOST"`, as the operator of the vending machine gave it.',
  judge(evidence) {
    const { parts, settings } = evidence
    if (!parts) return unknown('the configuration cannot be read')
    if (parts.url)
      return parts.url.ok ? 'fine' : mistake(parts.url, 'https://HOST', 'url = "https://HOST"')
    if (enrolledAs(evidence)) return notNeeded
    const where = (settings.ok && settings.value.configFile) || '/etc/certvend/agent.toml'
    return {
      found: 'no vending server is named',
      expected: 'the URL of the vending machine',
      mend: `name it: --server URL, or url = "https://…" in ${where}; certvend init asks for all of it`,
      care: 'configure',
    }
  },
}

export const pins: Check = {
  name: 'pins',
  symptom: 'It does not enroll: a pin cannot be used',
  looks: 'Whether every pin file is there and holds CA certificates.',
  advice:
    'A pin is the certificate, in PEM, of the CA that issued the vending server its own; the operator has it as `tls/pin.pem`. The server certificate itself cannot be pinned.',
  judge(evidence) {
    const { parts } = evidence
    if (!parts) return unknown('the configuration cannot be read')
    const bad = parts.pins.find(({ read }) => !read.ok)
    if (bad && !bad.read.ok)
      return mistake(bad.read, 'a CA certificate in PEM', 'ask the operator for pin.pem')
    if (parts.pins.length > 0) return 'fine'
    if (parts.url?.ok && parts.url.value.protocol === 'http:')
      return unknown('nobody can vouch for http://')
    if (enrolledAs(evidence) && !parts.url) return notNeeded
    return {
      found: 'no pin is named',
      expected: 'the CA that vouches for the vending machine',
      mend: 'name it: --pin FILE, or pins = "FILE"',
      care: 'configure',
    }
  },
}

export const pinExpiry: Check = {
  name: 'pin-expiry',
  symptom: 'It does not enroll: every pin has expired',
  looks: 'Until when the pins are valid.',
  advice:
    'Get the pin of the CA that vouches for the vending server now, beside the old one: more than one is the normal case.',
  after: ['clock'],
  judge({ parts, now }) {
    const all = (parts?.pins ?? []).flatMap(({ read }) => (read.ok ? read.value : []))
    if (all.length === 0) return unknown('no pin can be read')
    const last = new Date(Math.max(...all.map(({ notAfter }) => notAfter.getTime())))
    if (last.getTime() - now.getTime() > soonMs) return 'fine'
    return {
      found:
        last < now
          ? `every pin has expired, the last on ${day(last)}`
          : `the last pin expires on ${day(last)}`,
      expected: 'a pin that is valid, and its successor beside it',
      mend: 'ask the operator of the vending machine for its present CA, and add the file to pins',
      care: 'act',
    }
  },
}

export const serial: Check = {
  name: 'serial',
  symptom: 'It does not enroll, or says that the store is another device’s',
  looks: 'Whether the serial can be read, and is the one that the stored credential is for.',
  advice:
    'Name a serial that only this device has: `serial = "…"`, or `{ from = "machine-id" }`. Give each device a state directory of its own.',
  judge(evidence) {
    const { parts } = evidence
    if (!parts) return unknown('the configuration cannot be read')
    const { serial: read } = parts
    const enrolled = enrolledAs(evidence)
    if (enrolled && !read.written) return 'fine'
    if (!read.ok)
      return mistake(read, 'a serial that only this device has', 'serial = { from = "machine-id" }')
    if (enrolled && enrolled !== read.value)
      return {
        found: `the stored credential is of ${enrolled}, and this device is ${read.value}`,
        expected: 'the credential of this device',
        mend: 'correct the serial; or, if this store was copied from another device, give this one its own: state_directory = "…"',
        care: 'act',
      }
    return 'fine'
  },
}

export const token: Check = {
  name: 'token',
  symptom: 'It does not enroll: there is no token',
  looks: 'Before there is a credential: whether a token is at hand. It is not sent anywhere.',
  advice:
    'Put the token alone, on one line, into the file that `token_file` names, mode 0600; or as `certvend.token` onto the boot partition. A new one: `certvend-server device rearm SERIAL`.',
  after: ['store-safety', 'key', 'store'],
  judge(evidence) {
    const { parts } = evidence
    if (enrolledAs(evidence)) return notNeeded
    if (!parts) return unknown('the configuration cannot be read')
    const { token: read } = parts
    if (read === 'absent')
      return {
        found: 'no token is at hand',
        expected: 'the one-time token that the operator gave for this serial',
        mend: 'put it into a file of mode 0600, and name that: --token-file FILE, or token_file = "FILE"',
        care: 'configure',
      }
    return read.ok
      ? 'fine'
      : mistake(
          read,
          'one token and nothing else',
          'certvend-server device rearm SERIAL gives another',
        )
  },
}
