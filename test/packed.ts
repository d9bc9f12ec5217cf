/** Our packages as a stranger gets them: packed, and installed by npm in an empty directory. */
import { execFile } from 'node:child_process'
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const run = promisify(execFile)

/** What a stranger's shell knows: nothing of this workspace, nothing of the runner. */
export const strangersEnvironment: NodeJS.ProcessEnv = Object.fromEntries(
  Object.entries(process.env).filter(([name]) =>
    /^(PATH|HOME|TMPDIR|LANG|NODE_EXTRA_CA_CERTS|(https?|no)_proxy|npm_config_(registry|cache))$/i.test(
      name,
    ),
  ),
)

/** The workspace: where the first `pnpm-workspace.yaml` above this file lies. */
function workspace(): string {
  let at = path.dirname(fileURLToPath(import.meta.url))
  while (!fs.existsSync(path.join(at, 'pnpm-workspace.yaml'))) at = path.dirname(at)
  return at
}

/**
 * Packs `packages/<name>` into `<name>.tgz` and installs them in `directory`, with what else is named.
 *
 * @returns why npm cannot install them here, or nothing; other failures reject
 */
export async function installPacked(
  directory: string,
  names: readonly string[],
  also: readonly string[] = [],
): Promise<string | undefined> {
  const root = workspace()
  const { packageManager } = JSON.parse(fs.readFileSync(path.join(root, 'package.json'), 'utf8'))
  await Promise.all(
    names.map((name) =>
      run('npx', ['--yes', packageManager, 'pack', '--out', path.join(directory, `${name}.tgz`)], {
        cwd: path.join(root, 'packages', name),
      }),
    ),
  )
  fs.writeFileSync(path.join(directory, 'package.json'), '{ "private": true, "type": "module" }\n')
  const wanted = [...names.map((name) => `./${name}.tgz`), ...also]
  const flags = ['--no-audit', '--no-fund', '--prefer-offline', '--loglevel=error']
  try {
    await run('npm', ['install', ...flags, ...wanted], {
      cwd: directory,
      env: strangersEnvironment,
    })
    return undefined
  } catch (error) {
    const unreachable = /ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENOTCACHED/
    const [code] = unreachable.exec((error as { stderr?: string }).stderr ?? '') ?? []
    if (!code) throw error
    return `npm cannot reach its registry (${code})`
  }
}
