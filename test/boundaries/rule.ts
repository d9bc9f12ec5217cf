/** What a boundary rule is, and the small words that rules are written with. */
import type { Found, Import, Source } from './source.ts'

export interface Breach {
  readonly path: string
  readonly line: number
  /** What stands there. */
  readonly text: string
}

export interface Rule {
  readonly name: string
  /** Why the rule exists; the message when it is broken. */
  readonly because: string
  /** Everything in `sources` that breaks the rule. */
  breaches(sources: readonly Source[]): Breach[]
  /** Small worlds, path to text, each of which breaks it. */
  readonly broken: readonly Readonly<Record<string, string>>[]
  /** A small world that comes close and does not. */
  readonly kept?: Readonly<Record<string, string>>
}

type Judge = (source: Source) => readonly Found[]

/** The breaches of a rule that judges one file at a time. */
export const each =
  (applies: (path: string) => boolean, judge: Judge): Rule['breaches'] =>
  (sources) =>
    sources
      .filter(({ path }) => applies(path))
      .flatMap((source) => judge(source).map((found) => breach(source, found)))

const breach = ({ path }: Source, { text, line }: Found): Breach => ({ path, line, text })

/** The files below `packages/<name>/src`, all three without a name. */
export const inPackage =
  (...names: string[]) =>
  (path: string): boolean => {
    const name = /^packages\/([^/]+)\/src\//.exec(path)?.[1]
    return name !== undefined && (names.length === 0 || names.includes(name))
  }

/** Client and agent: what runs on a device. */
export const onDevice: (path: string) => boolean = inPackage('client', 'agent')

export const except =
  (applies: (path: string) => boolean, ...paths: string[]) =>
  (path: string): boolean =>
    applies(path) && !paths.includes(path)

/** The imports that `unwanted` picks. */
export const importsOf = (
  source: Source,
  unwanted: (specifier: string, found: Import) => boolean,
): Found[] =>
  source.imports
    .filter((found) => unwanted(found.specifier, found))
    .map(({ specifier, line }) => ({ text: `imports ${specifier}`, line }))

/** Whether `specifier` names the package `name` or something inside it. */
export const isFrom = (specifier: string, name: string): boolean =>
  specifier === name || specifier.startsWith(`${name}/`)
