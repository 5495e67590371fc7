/** The public API as the declaration files have it: what each entry exports, and the types that those declarations name. */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { repositoryRoot } from './shared.js'

/** Entries of package.json's "exports", and the declarations that a user's compiler reads for them. */
export const ENTRIES = { implex: 'dist/lib/index.d.ts', 'implex/lab': 'dist/lab/index.d.ts' } as const
export type Entry = keyof typeof ENTRIES

export interface Export {
  name: string
  /** The declaration file that it comes from. */
  file: string
  isType: boolean
}

export function exportsOf(entry: Entry): Export[] {
  const index = join(repositoryRoot, ENTRIES[entry])
  const text = withoutComments(readFileSync(index, 'utf8'))
  const statements = Array.from(text.matchAll(/^export (type )?\{([^}]*)\} from '([^']+)';/gm))
  const rest = text.replaceAll(/^export (type )?\{[^}]*\} from '[^']+';/gm, '').trim()
  if (rest !== '') throw new Error(`${ENTRIES[entry]} holds more than exports from other files: ${rest}`)
  return statements.flatMap(([, allTypes, names, from]) =>
    namesIn(names!).map((one) => {
      const name = one.replace(/^type /, '')
      const isType = allTypes !== undefined || one.startsWith('type ')
      return { name, file: join(dirname(index), from!.replace(/\.js$/, '.d.ts')), isType }
    }),
  )
}

/** The text of a top-level declaration, with its comments or without. @throws Error when the file has none of this name */
export function declarationOf({ file, name }: Pick<Export, 'file' | 'name'>, comments = false): string {
  const text = readFileSync(file, 'utf8').replace(/^\/\*\*[\s\S]*?\*\/\s*/, '') // what the file is for
  const found = topLevel(comments ? text : withoutComments(text)).find((one) => declaredName(one) === name)
  if (found === undefined) throw new Error(`${file} declares no ${name}`)
  return found
}

/** Types of implex that a declaration names: those imported into its file and those declared beside it. */
export function typesNamedBy(one: Export): Set<string> {
  const text = withoutComments(readFileSync(one.file, 'utf8'))
  const ours = new Map<string, string>()
  for (const [, names, from] of text.matchAll(/^import (?:type )?\{([^}]*)\} from '([^']+)';/gm)) {
    for (const name of namesIn(names!)) {
      const [original, local = original] = name.replace(/^type /, '').split(' as ')
      if (from!.startsWith('.')) ours.set(local!, original!)
    }
  }
  for (const declared of topLevel(text).map(declaredName)) if (declared !== undefined) ours.set(declared, declared)
  const visible = declarationOf(one)
    .split('\n')
    .filter((line) => !/^\s+(?:private|#|static #)/.test(line))
    .join('\n')
    .replaceAll(/'[^']*'|"[^"]*"/g, "''")
    .replaceAll(/typeof [\w.]+/g, '') // a user's compiler resolves the value's type
  const named = Array.from(visible.matchAll(/(?<![.\w#])[A-Za-z_]\w*(?!\w|\??:|\()/g), ([name]) => ours.get(name))
  if (/import\(/.test(visible)) throw new Error(`${one.name} names a type of a file by its path: give it a name`)
  return new Set(named.filter((name) => name !== undefined && name !== one.name) as string[])
}

/** Names between the braces of an import or export. */
function namesIn(list: string): string[] {
  return list
    .split(',')
    .map((one) => one.trim())
    .filter((one) => one !== '')
}

function topLevel(text: string): string[] {
  const pieces = text.split(/^(?=(?:\/\*\*|export |declare |import |interface |type |class ))/m)
  // A comment belongs to what follows it.
  return pieces.reduce<string[]>((all, piece) => {
    const before = all.at(-1)
    if (before?.startsWith('/**') && before.trimEnd().endsWith('*/')) all[all.length - 1] = before + piece
    else all.push(piece)
    return all
  }, [])
}

function declaredName(piece: string): string | undefined {
  return /^(?:export )?(?:declare )?(?:abstract )?(?:class|interface|type|function|const|enum) (\w+)/m.exec(
    withoutComments(piece),
  )?.[1]
}

function withoutComments(text: string): string {
  return text.replaceAll(/\/\*[\s\S]*?\*\//g, '').replaceAll(/\/\/#.*$/gm, '')
}
