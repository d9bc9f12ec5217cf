/**
 * `npm run deploy:check`: `template.yaml` judged by cfn-lint, with AWS's own schemas and SAM's transform.
 *
 * cfn-lint is written in Python by others; without Python this says what to install, and skips.
 */
import { spawnSync } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { pythonTool } from './python.mjs'

const root = fileURLToPath(new URL('..', import.meta.url))
const template = 'packages/server/template.yaml'

const tool = await pythonTool('cfn-lint')
if (tool.program) {
  const { status, error } = spawnSync(
    tool.program,
    ['--non-zero-exit-code', 'informational', template],
    {
      cwd: root,
      stdio: 'inherit',
    },
  )
  if (error) console.error(error.message)
  const ok = status === 0
  console.log(`${ok ? 'ok    ' : 'FAILED'} ${path.basename(template)}, by cfn-lint`)
  console.log(`\ndeploy: ${ok ? 1 : 0} passed, ${ok ? 0 : 1} failed, 0 skipped`)
  process.exitCode = ok ? 0 : 1
} else {
  console.log(`skipped: cfn-lint: ${tool.missing}\n  ${tool.advice}`)
  console.log('\ndeploy: 0 passed, 0 failed, 1 skipped')
}
