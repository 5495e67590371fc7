/** A public export as a part of docs/api.md: its doc comment, and its members as a table, from the declaration files. */
import { relative } from 'node:path'
import { declarationOf, ENTRIES, type Entry, type Export, exportsOf } from './public-api.js'
import { repositoryRoot } from './shared.js'

export interface Member {
  /** As it is used: `path`, `score(rows, options?)`. */
  name: string
  type: string
  optional: boolean
  doc: string
}

export function findExport(name: string): Export | undefined {
  return (Object.keys(ENTRIES) as Entry[]).flatMap((entry) => exportsOf(entry)).find((one) => one.name === name)
}

/** @throws Error for a name that is not exported */
export function apiText(name: string): string {
  const one = findExport(name)
  if (one === undefined) throw new Error(`${name} is not exported`)
  const { doc, text } = documented(declarationOf(one, true))
  const source = relative(repositoryRoot, one.file)
    .replace(/^dist\//, '')
    .replace(/\.d\.ts$/, '.ts')
  const parts = [doc, ...bodyOf(text), `Source: [${source}](../${source})`]
  return parts.filter((part) => part !== '').join('\n\n')
}

function bodyOf(text: string): string[] {
  if (/^export (?:declare )?(?:interface|class) /.test(text)) {
    const head = oneLine(text.slice(text.indexOf(' ', 7) + 1, text.indexOf('{'))).trim()
    const members = membersOf(text)
    const inherits = / (?:extends|implements) /.test(head) ? [code(head.replace(/^declare /, ''))] : []
    return [...inherits, table(members)]
  }
  const plain = oneLine(text.replace(/^export (?:declare )?/, '')).replace(/;$/, '')
  const members = /^const \w+: \{/.test(plain) || /^type \w+ = \{/.test(plain) ? membersOf(text) : []
  return members.length > 0 ? [table(members)] : [code(plain)]
}

/** What users see of an interface, a class or an object: nothing private. */
export function membersOf(text: string): Member[] {
  const body = text.slice(text.indexOf('{') + 1, text.lastIndexOf('}'))
  const members: Member[] = []
  for (const piece of statements(body)) {
    const { doc, text: declared } = documented(piece.trim())
    const line = oneLine(declared)
    if (line === '' || /^(private|protected|static #|#|\[Symbol)/.test(line)) continue
    const match = /^((?:static |readonly |get |declare )*)([\w.]+|\[[^\]]*\])(\??)(\(?)/.exec(line)
    if (match === null) throw new Error(`cannot read the member ${line}`)
    const [whole, words, name, optional, call] = match as unknown as [string, string, string, string, string]
    const rest = line.slice(whole.length - call.length).replace(/^: /, '')
    members.push({
      name: words.includes('static') ? `static ${name}` : name,
      type: words.startsWith('get') ? rest.replace(/^\(\): /, '') : rest,
      optional: optional === '?',
      doc: doc.replaceAll('\n', ' '),
    })
  }
  return members
}

/** The pieces of a body that end in a semicolon outside of any brace and comment. */
function statements(body: string): string[] {
  const pieces: string[] = []
  let start = 0
  let depth = 0
  for (const { 0: mark, index } of body.matchAll(/\/\*[\s\S]*?\*\/|'[^']*'|[{}();]/g)) {
    if (mark === '{' || mark === '(') depth++
    else if (mark === '}' || mark === ')') depth--
    else if (mark === ';' && depth === 0) {
      pieces.push(body.slice(start, index))
      start = index + 1
    }
  }
  return pieces
}

function table(members: Member[]): string {
  return [
    '| member | type | meaning |',
    '|---|---|---|',
    ...members.map(({ name, type, optional, doc }) => {
      const cells = [code(`${name}${optional ? '?' : ''}`), code(type), doc]
      return `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
    }),
  ].join('\n')
}

/** The doc comment as prose, and what it is about. */
function documented(text: string): { doc: string; text: string } {
  const match = /^\/\*\*([\s\S]*?)\*\/\s*/.exec(text)
  if (match === null) return { doc: '', text }
  const lines = match[1]!.split('\n').map((line) => line.replace(/^\s*\*? ?/, '').trim())
  const doc = lines
    .join('\n')
    .trim()
    .replaceAll(/\s*@throws /g, '\n\nThrows ')
    .replaceAll(/\s*@returns /g, '\n\nReturns ')
    .replaceAll(/\s*@param (\w+) /g, '\n\n`$1`: ')
    .replaceAll(/(\S)\n(?=\S)/g, '$1 ')
    .trim()
  return { doc, text: text.slice(match[0].length) }
}

function oneLine(text: string): string {
  return text
    .replaceAll(/\/\*[\s\S]*?\*\//g, '')
    .replaceAll(/\s+/g, ' ')
    .trim()
}

function code(text: string): string {
  return `\`${text}\``
}
