/** `npm run docs:dialects`: writes what is generated into docs/dialects.md. */
import { readFileSync, writeFileSync } from 'node:fs'
import { begins, ends, renderDialects } from './dialects.ts'

const file = new URL('../../../docs/dialects.md', import.meta.url)
const text = readFileSync(file, 'utf8')
const before = text.slice(0, text.indexOf(begins))
const after = text.slice(text.indexOf(ends) + ends.length)
writeFileSync(file, before + (await renderDialects()) + after)
