/**
 * An npm registry for a machine that sees no other: it serves what a directory of this host has installed,
 * in the versions that are there. So the machine's npm is told nothing but its address, and downloads.
 */
import { spawn } from 'node:child_process'
import fs from 'node:fs'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import path from 'node:path'

export interface Shelf {
  readonly url: string
  close(): Promise<void>
}

interface Manifest {
  readonly name: string
  readonly version: string
}

export async function openShelf(directory: string, address: string): Promise<Shelf> {
  const shelf = new Map<string, Map<string, { at: string; manifest: Manifest }>>()
  for (const [at, manifest] of installed(directory)) {
    const versions = shelf.get(manifest.name) ?? new Map()
    shelf.set(manifest.name, versions.set(manifest.version, { at, manifest }))
  }
  let url = ''

  /** What npm asks first: the versions of a package, and where each of them lies. */
  function document(name: string): object | undefined {
    const versions = shelf.get(name)
    if (!versions) return undefined
    const described = [...versions].map(([version, { manifest }]) => [
      version,
      { ...manifest, dist: { tarball: `${url}/${name}/-/${version}.tgz` } },
    ])
    const latest = [...versions.keys()].at(-1)
    return { name, 'dist-tags': { latest }, versions: Object.fromEntries(described) }
  }

  function answer({ url: asked = '' }: IncomingMessage, response: ServerResponse): void {
    const name = decodeURIComponent(asked).slice(1)
    const [, packed = '', version = ''] = /^(.+)\/-\/(.+)\.tgz$/.exec(name) ?? []
    const found = shelf.get(packed)?.get(version)
    if (found) {
      const flags = ['--exclude=./node_modules', '--transform=s,^\\.,package,']
      spawn('tar', ['-C', found.at, ...flags, '-cz', '.']).stdout.pipe(response)
      return
    }
    const known = document(name)
    response.writeHead(known ? 200 : 404, { 'content-type': 'application/json' })
    response.end(JSON.stringify(known ?? { error: 'not found' }))
  }

  const server = createServer(answer).listen(0, address)
  await new Promise((resolve, reject) => server.once('listening', resolve).once('error', reject))
  url = `http://${address}:${(server.address() as AddressInfo).port}`
  return {
    url,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve())
        server.closeAllConnections()
      }),
  }
}

/** Every package below `directory/node_modules`, also those that lie in others. */
function* installed(directory: string): Generator<[at: string, manifest: Manifest]> {
  const modules = path.join(directory, 'node_modules')
  if (!fs.existsSync(modules)) return
  const names = fs
    .readdirSync(modules)
    .filter((name) => !name.startsWith('.'))
    .flatMap((name) =>
      name.startsWith('@')
        ? fs.readdirSync(path.join(modules, name)).map((part) => path.join(name, part))
        : [name],
    )
  for (const name of names) {
    const at = path.join(modules, name)
    const manifest = path.join(at, 'package.json')
    if (fs.existsSync(manifest)) yield [at, JSON.parse(fs.readFileSync(manifest, 'utf8'))]
    yield* installed(at)
  }
}
