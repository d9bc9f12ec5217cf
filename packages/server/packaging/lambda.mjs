/**
 * Bundles the functions that `template.yaml` deploys: `node packages/server/packaging/lambda.mjs
 * [--out DIRECTORY]`, after `tsc -b`; by default into `dist/lambda`.
 *
 * One directory for all of them: each is an entry of its own, what they share lies in chunks, and what
 * a call does not need is not read by a cold start. The same commit gives the same bytes.
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
const entries = ['vend', 'activate', 'confirm', 'sweep'].filter((name) =>
  fs.existsSync(path.join(functions, `${name}.js`)),
)

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
const outputs = Object.entries(metafile.outputs)
for (const [file, { bytes, entryPoint, imports }] of outputs) {
  if (!entryPoint) continue
  const read = imports.filter(({ kind }) => kind === 'import-statement')
  const chunks = read.reduce((sum, { path: chunk }) => sum + metafile.outputs[chunk].bytes, 0)
  say(`${path.basename(file)}  ${kilobytes(bytes + chunks)} read by a cold start`)
}
const total = outputs.reduce((sum, [, { bytes }]) => sum + bytes, 0)
say(`${path.relative(process.cwd(), out)}: ${outputs.length} files, ${kilobytes(total)}`)
