/** A public export as a part of docs/api.md: its doc comment, and its members as a table, from the declaration files. */
import { relative } from 'node:path'
import { trainFlag } from '../../cli/options.js'
import { type OptionRow, TRAIN_OPTIONS, type TrainOptionName } from '../../lib/train/option-table.js'
import { declarationOf, ENTRIES, type Entry, type Export, exportsOf } from './public-api.js'
import { repositoryRoot } from './shared.js'

export interface Member {
  /** As it is used: `path`, `score(rows, options?)`. */
  name: string
  type: string
  optional: boolean
  doc: string
  /** For an option of training: its flag. */
  flag?: string
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
  const parts = [doc, ...bodyOf(one, text), `Source: [${source}](../${source})`]
  return parts.filter((part) => part !== '').join('\n\n')
}

function bodyOf(one: Export, text: string): string[] {
  const line = resolved(one, oneLine(text.replace(/^export (?:declare )?/, ''))).replace(/;$/, '')
  const open = line.indexOf('{')
  if (open < 0 || line.startsWith('function ')) return [code(line)]
  const members = membersOf(text)
  if (members.some(({ name }) => name.startsWith('['))) return [code(line)]
  const head = line.slice(0, open).trim()
  const plain = /^(?:interface|class|const|type) \w+(?::| =)?$/.test(head)
  return [
    ...(plain ? [] : [code(line.startsWith('type ') ? `${head} { … }` : head)]),
    table(members.map((member) => ({ ...member, ...named(one, member), ...flagOf(one, member) }))),
  ]
}

/** Training options as the command has them. */
function flagOf({ name: owner }: Export, { name }: Member): { flag?: string } {
  if (owner !== 'TrainSettings' && owner !== 'TrainConduct') return {}
  const row: OptionRow = TRAIN_OPTIONS[name as TrainOptionName]
  return row.flag === undefined ? {} : { flag: trainFlag(name as TrainOptionName).long! }
}

/** A member that is a function of the same file, with that function's comment. */
function named(one: Export, { type, doc }: Member): Pick<Member, 'type' | 'doc'> {
  const name = /^typeof ([a-z]\w*)$/.exec(type)?.[1]
  if (name === undefined) return { type: resolved(one, type), doc: doc === '' ? see(type) : doc }
  const { doc: its, text } = documented(declarationOf({ file: one.file, name }, true))
  return {
    type: oneLine(text)
      .replace(/^.*?function \w+/, '')
      .replace(/;$/, ''),
    doc: inCell(its),
  }
}

/** Where a member has no comment of its own, the types that it names say what it is. */
function see(type: string): string {
  const names = new Set(Array.from(type.matchAll(/\b[A-Z]\w+/g), ([name]) => name).filter((name) => findExport(name)))
  return names.size === 0 ? '' : `See ${[...names].map((name) => `[${name}](#${name.toLowerCase()})`).join(', ')}.`
}

/** With the values of constants in the place of `typeof NAME`. */
function resolved({ file }: Export, text: string): string {
  return text.replaceAll(/\(?typeof ([A-Z_]+)\)?(\[number\])?/g, (_, name: string, list?: string) => {
    const value = oneLine(declarationOf({ file, name }))
      .replace(/^.*?const \w+(?:: | = )/, '')
      .replace(/;$/, '')
    return list === undefined
      ? value
      : value
          .replace(/^readonly \[(.*)\]$/, '$1')
          .replaceAll(', ', ' | ')
          .replaceAll('"', "'")
  })
}

function inCell(doc: string): string {
  return doc.replaceAll(/([^.:;\n])\n+/g, '$1. ').replaceAll(/\n+/g, ' ')
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
      name: `${words.includes('static') ? 'static ' : ''}${name}${call === '' || words.includes('get') ? '' : '()'}`,
      type: words.startsWith('get') ? rest.replace(/^\(\): /, '') : rest,
      optional: optional === '?',
      doc: inCell(doc),
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
  const flags = members.some(({ flag }) => flag !== undefined)
  return [
    `| member | type | ${flags ? 'flag | ' : ''}meaning |`,
    `|---|---|${flags ? '---|' : ''}---|`,
    ...members.map(({ name, type, optional, doc, flag }) => {
      const flagCell = flags ? [flag === undefined ? '' : code(flag)] : []
      const cells = [code(`${name}${optional ? '?' : ''}`), code(type), ...flagCell, doc]
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
