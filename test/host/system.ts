/** What the machine of the page has before its first step: Debian, and from apt what the page presumes. */
import fs from 'node:fs'
import path from 'node:path'
import { cache, host, type LayOut } from '../gateway/machine.ts'

const packages = ['npm', 'curl', 'ca-certificates', 'mariadb-server', 'sudo']

/** The base with {@link packages}, installed by apt in it, once. */
export async function serverSystem(base: string): Promise<string> {
  const system = path.join(cache, `${path.basename(base)}-server-${packages.length}`)
  if (fs.existsSync(system)) return system
  const unfinished = fs.mkdtempSync(`${system}-`)
  try {
    await host('cp', '-a', '--reflink=auto', `${base}/.`, unfinished)
    fs.copyFileSync('/etc/resolv.conf', path.join(unfinished, 'etc/resolv.conf'))
    const policy = path.join(unfinished, 'usr/sbin/policy-rc.d')
    fs.writeFileSync(policy, '#!/bin/sh\nexit 101\n', { mode: 0o755 }) // nothing is started in there
    const apt = ['env', 'DEBIAN_FRONTEND=noninteractive', 'LC_ALL=C', 'apt-get', '-y', '-qq']
    await host('chroot', unfinished, ...apt, 'update')
    await host('chroot', unfinished, ...apt, 'install', '--no-install-recommends', ...packages)
    await host('chroot', unfinished, ...apt, 'clean')
    fs.rmSync(policy)
    fs.renameSync(unfinished, system)
    return system
  } catch (error) {
    await host('rm', '-rf', unfinished)
    throw error
  }
}

/** `root` is `base` and what is written over it; a copy, which takes long, where there is no overlay. */
export const layOver: LayOut = async (base, root, directory) => {
  const [upper, work] = [path.join(directory, 'upper'), path.join(directory, 'work')]
  for (const made of [upper, work, root]) fs.mkdirSync(made)
  fs.chmodSync(upper, fs.statSync(base).mode)
  const layers = `lowerdir=${base},upperdir=${upper},workdir=${work}`
  try {
    await host('mount', '-t', 'overlay', '-o', layers, 'certvend-machine', root)
  } catch {
    await host('cp', '-a', '--reflink=auto', `${base}/.`, root)
  }
}
