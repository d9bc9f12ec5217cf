/**
 * The PIN of a PKCS#11 token: in a file that nobody else can read, from there to the token, and
 * nowhere else. It is read at the last moment and not kept.
 */
import fs from 'node:fs'
import { CertvendError } from './errors.ts'

export interface PinFile {
  readonly path: string
  /**
   * The PIN, judged anew each time.
   *
   * @throws {CertvendError} `ERR_KEY_UNAVAILABLE`
   */
  read(): string
  /** The token did not take it. A token locks after a few tries, so it is not tried again until the file changes. */
  refuse(): void
}

const largestPin = 255

const unusable = (path: string, why: string, hint?: string): CertvendError =>
  new CertvendError('ERR_KEY_UNAVAILABLE', `the PIN file ${path} ${why}`, hint ? { hint } : {})

/** What changes when the file is written anew. */
const versionOf = ({ ino, mtimeMs, ctimeMs }: fs.Stats): string => `${ino} ${mtimeMs} ${ctimeMs}`

export function pinFile(path: string): PinFile {
  let refused: string | undefined
  let tried: string | undefined
  return {
    path,
    read() {
      const { text, found } = open(path)
      judgeAccess(path, found)
      tried = versionOf(found)
      if (refused === tried)
        throw unusable(
          path,
          'holds a PIN that the token refused; it is not tried again, for tokens lock',
          `write the right PIN to ${path}`,
        )
      if (text === '') throw unusable(path, 'is empty')
      if (/\p{Cc}/u.test(text))
        throw unusable(
          path,
          'holds more than the PIN (a line end, perhaps)',
          `write it without one: printf %s PIN > ${path}`,
        )
      return text
    },
    refuse() {
      refused = tried
    },
  }
}

function open(path: string): { text: string; found: fs.Stats } {
  try {
    const descriptor = fs.openSync(path, fs.constants.O_RDONLY | fs.constants.O_NONBLOCK)
    try {
      const found = fs.fstatSync(descriptor)
      if (!found.isFile() || found.size > largestPin)
        throw unusable(path, `is not a file of at most ${largestPin} bytes`)
      return { text: fs.readFileSync(descriptor, 'utf8'), found }
    } finally {
      fs.closeSync(descriptor)
    }
  } catch (error) {
    if (error instanceof CertvendError) throw error
    throw unusable(path, `cannot be read (${(error as NodeJS.ErrnoException).code})`)
  }
}

function judgeAccess(path: string, { mode, uid, gid }: fs.Stats): void {
  const me = process.getuid?.() ?? 0
  if (uid !== 0 && uid !== me)
    throw unusable(path, `belongs to user ${uid}`, `chown ${me} ${path}; chmod 600 ${path}`)
  // systemd's credentials are root's, and the access list that lets the service read shows as 0440.
  const credential = uid === 0 && gid === 0 && (mode & 0o077) === 0o040
  if ((mode & 0o077) !== 0 && !credential)
    throw unusable(path, 'is open to group or others', `chmod 600 ${path}`)
}
