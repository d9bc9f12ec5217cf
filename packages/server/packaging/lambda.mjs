/**
 * Bundles the functions that `template.yaml` deploys: `node packages/server/packaging/lambda.mjs
 * [--out DIRECTORY]`, after `tsc -b`; by default into `dist/lambda`.
 *
 * One directory for all of them: each is an entry of its own, what they share lies in chunks, and what
 * a call does not need is not read by a cold start.
 */
import fs from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { build } from 'esbuild'

const here = path.dirname(fileURLToPath(import.meta.url))
const root = path.resolve(here, '../../..')
const { values } = parseArgs({
  options: { out: { type: 'string', default: path.join(root, 'dist/lambda') } },
})
const out = path.resolve(values.out)
const functions = path.join(here, '../dist/lambda')
const entries = ['vend', 'activate', 'confirm', 'sweep']

fs.rmSync(out, { recursive: true, force: true })
const { metafile } = await build({
  absWorkingDir: root,
  entryPoints: entries.map((name) => path.join(functions, `${name}.js`)),
  outdir: out,
  outExtension: { '.js': '.mjs' },
  bundle: true,
  splitting: true,
  minify: true,
  format: 'esm',
  platform: 'node',
  // The oldest runtime that Lambda still offers.
  target: 'node20',
  mainFields: ['module', 'main'],
  legalComments: 'none',
  metafile: true,
  // What is bundled of CommonJS asks for Node's own modules by require.
  banner: {
    js: "import{createRequire as certvendRequire}from'node:module';const require=certvendRequire(import.meta.url);",
  },
})

const say = (line) => process.stdout.write(`${line}\n`)
const kilobytes = (bytes) => `${Math.round(bytes / 1024)} KB`
const outputs = metafile.outputs
/** What is read before a function can be called: itself, and what it imports in any way but by import(). */
function read(file, seen = new Set()) {
  if (seen.has(file)) return seen
  seen.add(file)
  for (const { path: chunk, kind } of outputs[file].imports)
    if (kind === 'import-statement' && outputs[chunk]) read(chunk, seen)
  return seen
}
for (const name of entries) {
  const file = path.relative(root, path.join(out, `${name}.mjs`))
  const bytes = [...read(file)].reduce((sum, each) => sum + outputs[each].bytes, 0)
  say(`${name}: ${kilobytes(bytes)} are read by a cold start`)
}
const total = Object.values(outputs).reduce((sum, { bytes }) => sum + bytes, 0)
const count = Object.keys(outputs).length
say(`${path.relative(process.cwd(), out)}: ${count} files, ${kilobytes(total)}`)
