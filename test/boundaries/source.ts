/**
 * What a source file imports, exports, calls and declares: facts for the boundary rules to judge.
 *
 * Parsed by the parser that Vite brings; TypeScript 7 has no JavaScript API.
 */
import { type ESTree, parseSync, Visitor } from 'vite'

export interface Import {
  readonly specifier: string
  /** Names as exported there; `*` for a namespace, `default` for a default import. */
  readonly names: readonly string[]
  readonly locals: readonly string[]
  readonly form: 'static' | 'type' | 'dynamic' | 'reexport'
  readonly line: number
}

/** Something found in the text, as written there. */
export interface Found {
  readonly text: string
  readonly line: number
  /** Offset in the file, when one node must be told from another. */
  readonly at?: number
}

export interface Source {
  /** From the repository's root, with `/`. */
  readonly path: string
  readonly lines: number
  readonly imports: readonly Import[]
  readonly defaultExports: readonly Found[]
  /** Top-level statements that are not `export … from`. */
  readonly ownStatements: readonly Found[]
  /** Top-level variables that can change: `let`, `var`, an empty Map, Set or array. */
  readonly mutableState: readonly Found[]
  readonly classes: readonly Found[]
  readonly calls: readonly (Found & { readonly arguments: readonly string[] })[]
  readonly constructions: readonly (Found & { readonly arguments: readonly string[] })[]
  readonly members: readonly Found[]
  /** What a parameter is when the caller passes none. */
  readonly defaults: readonly Found[]
  /** Left sides of assignments. */
  readonly assigned: readonly Found[]
  /** Keys of object literals, with their values. */
  readonly properties: readonly (Found & { readonly value: string })[]
}

const emptyCollection = /^(new (Map|Set|WeakMap|WeakSet|Array)(<.*>)?\(\)|\[\]|\{\})$/s

/** Reads the facts of one file. @throws Error when it does not parse. */
export function parseSource(path: string, text: string): Source {
  const { program, module, errors } = parseSync(path, text)
  if (errors.length > 0) throw new Error(`${path}: ${errors[0]?.message}`)
  const starts = [0, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1)]
  const found = ({ start, end }: { start: number; end: number }): Found => ({
    text: text.slice(start, end),
    line: starts.findLastIndex((at) => at <= start) + 1,
    at: start,
  })
  const all = (nodes: readonly { start: number; end: number }[]): string[] =>
    nodes.map((node) => found(node).text)

  const imports: Import[] = []
  for (const { start, end, moduleRequest, entries } of module.staticImports)
    imports.push({
      specifier: moduleRequest.value,
      names: entries.map(({ importName: { kind, name } }) =>
        kind === 'Name' ? String(name) : kind === 'Default' ? 'default' : '*',
      ),
      locals: entries.map(({ localName }) => localName.value),
      form: entries.length > 0 && entries.every(({ isType }) => isType) ? 'type' : 'static',
      line: found({ start, end }).line,
    })
  for (const { start, end, entries } of module.staticExports) {
    const from = entries.find(({ moduleRequest }) => moduleRequest)?.moduleRequest
    if (from)
      imports.push({
        specifier: from.value,
        names: entries.map(({ importName }) => importName.name ?? '*'),
        locals: [],
        form: 'reexport',
        line: found({ start, end }).line,
      })
  }
  for (const { start, end, moduleRequest } of module.dynamicImports)
    imports.push({
      specifier: found(moduleRequest).text.replace(/^(['"`])(.*)\1$/s, '$2'),
      names: ['*'],
      locals: [],
      form: 'dynamic',
      line: found({ start, end }).line,
    })

  const calls: (Found & { arguments: string[] })[] = []
  const constructions: (Found & { arguments: string[] })[] = []
  const members: Found[] = []
  const properties: (Found & { value: string })[] = []
  const defaults: Found[] = []
  const assigned: Found[] = []
  const classes: Found[] = []
  const addClass = (node: ESTree.Class): void => {
    classes.push({ ...found(node), text: node.id?.name ?? 'a class without a name' })
  }
  new Visitor({
    CallExpression: (node) =>
      void calls.push({ ...found(node.callee), arguments: all(node.arguments) }),
    NewExpression: (node) =>
      void constructions.push({ ...found(node.callee), arguments: all(node.arguments) }),
    MemberExpression: (node) => void members.push(found(node)),
    AssignmentPattern: (node) => void defaults.push(found(node.right)),
    AssignmentExpression: (node) => void assigned.push(found(node.left)),
    Property: (node) => void properties.push({ ...found(node.key), value: found(node.value).text }),
    ClassDeclaration: addClass,
    ClassExpression: addClass,
  }).visit(program)

  return {
    path,
    lines: text.replace(/\n$/, '').split('\n').length,
    imports,
    defaultExports: program.body.filter(isDefaultExport).map(found),
    ownStatements: program.body.filter((statement) => !isReexport(statement)).map(found),
    mutableState: program.body.flatMap((statement) => mutable(statement, found)),
    classes,
    calls,
    constructions,
    members,
    defaults,
    assigned,
    properties,
  }
}

type Statement = ESTree.Program['body'][number]

const isReexport = (statement: Statement): boolean =>
  statement.type === 'ExportAllDeclaration' ||
  (statement.type === 'ExportNamedDeclaration' && statement.source !== null)

const isDefaultExport = (statement: Statement): boolean =>
  statement.type === 'ExportDefaultDeclaration' ||
  (statement.type === 'ExportNamedDeclaration' &&
    statement.specifiers.some(
      ({ exported }) => exported.type === 'Identifier' && exported.name === 'default',
    ))

function mutable(
  statement: Statement,
  found: (node: { start: number; end: number }) => Found,
): Found[] {
  const declared = statement.type === 'ExportNamedDeclaration' ? statement.declaration : statement
  if (declared?.type !== 'VariableDeclaration') return []
  return declared.declarations
    .filter(
      ({ init }) =>
        declared.kind === 'let' ||
        declared.kind === 'var' ||
        (init && emptyCollection.test(found(init).text)),
    )
    .map(found)
}
