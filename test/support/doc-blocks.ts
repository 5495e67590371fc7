/**
 * The parts of README.md and docs/ that are made from the program itself. Such a part stands between two comments,
 * `<!-- generated: NAME -->` and `<!-- end -->`; test/docs.test.ts keeps it equal to what `blocks()[NAME]` returns.
 */
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { experimentBlock } from '../../bench/experiment-tables.js'
import { speedTable } from '../../bench/speed-table.js'
import { FAMILIES } from '../../lib/checkpoint/families.js'
import { HEAD_FORMS, type HeadForm } from '../../lib/checkpoint/heads.js'
import { BOOKKEEPING, ROW_SHAPES } from '../../lib/data/shapes/table.js'
import type { DType } from '../../lib/native/device.js'
import { ImplexError } from '../../lib/core/errors.js'
import { BAD_COMMANDS, BAD_ROWS, BAD_TEXTS, type BadData, closeModels } from '../fixtures/bad-data.js'
import { BAD_INPUTS, provoke } from '../fixtures/bad-inputs.js'
import { apiText } from './api-doc.js'
import { implexHere } from './cli.js'
import { ARCHITECTURES, BOUNDS, errorTable, familyOf, type Measure } from './golden.js'
import { repositoryRoot } from './shared.js'
import { temporaryFolder } from './tmp.js'

export interface DocBlock {
  file: string
  name: string
  text: string
}

const MARKED = /<!-- generated: ([^>]+?) -->\n((?:(?!<!-- )[\s\S])*?)\n?<!-- end -->/g

export function docFiles(): string[] {
  const docs = readdirSync(join(repositoryRoot, 'docs')).filter((name) => name.endsWith('.md'))
  return ['README.md', 'CONTRIBUTING.md', 'CHANGELOG.md', ...docs.map((name) => `docs/${name}`)]
}

export function readDoc(file: string): string {
  return readFileSync(join(repositoryRoot, file), 'utf8')
}

export function docBlocks(): DocBlock[] {
  return docFiles().flatMap((file) =>
    Array.from(readDoc(file).matchAll(MARKED), ([, name, text]) => ({ file, name: name!, text: text! })),
  )
}

export function replaceBlock(text: string, name: string, by: string): string {
  return text.replaceAll(MARKED, (whole, found: string) =>
    found === name ? `<!-- generated: ${name} -->\n${by}\n<!-- end -->` : whole,
  )
}

/** What the block of this name should be; undefined for a name that is not known. */
export async function generate(name: string): Promise<string | undefined> {
  const [what, argument] = name.split(' ') as [string, string?]
  if (what === 'api') return apiText(argument!)
  if (what === 'help') return helpText(name.split(' ').slice(1))
  if (what === 'golden' && (argument === 'f32' || argument === 'bf16')) return goldenTable(argument)
  if (what === 'speed') return speedTable()
  if (what === 'heads') return headTable()
  if (what === 'families') return argument === 'names' ? familyNames() : familyTable()
  if (what === 'shapes') return shapeTable()
  if (what === 'bookkeeping') return BOOKKEEPING.map((key) => `\`${key}\``).join(', ')
  if (what === 'experiment') return experimentBlock(argument!, name.split(' ')[2] ?? 'result')
  if (what !== 'bad') return undefined
  if (argument === 'checkpoints') return badCheckpoints()
  const cases = { texts: BAD_TEXTS, rows: BAD_ROWS, commands: BAD_COMMANDS }[argument ?? '']
  return cases === undefined ? undefined : badData(cases, argument === 'commands' ? 'exit status' : 'code')
}

const PLACES: Readonly<Record<HeadForm['readAt'], string>> = {
  last: 'the last token',
  'last-unpadded': 'the last token that is not `pad_token_id`',
  cls_token: "the tokenizer's `cls_token`, which is put at the end",
  reward_token_id: "the config's `reward_token_id`, which is put at the end; without it, the last token",
}

function headTable(): string {
  const rows = HEAD_FORMS.map(({ layers, activation = 'relu', readAt, gated, architectures, named, savedBy }) => {
    const names = layers.map((name) => `\`${name}\``).join(', ') + (gated ? ', with a gate `gating.layers.0`, …' : '')
    const between = layers.length > 1 || gated ? activation : '—'
    const known =
      architectures === undefined
        ? '—'
        : `\`${architectures.source.replaceAll('|', '\\|')}\`${named ? ' (needed)' : ''}`
    return `| ${names} | ${between} | ${PLACES[readAt]} | ${known} | ${savedBy} |`
  })
  const head = '| layers | between them | where training read it | `architectures` | published or saved by |'
  return [head, '| --- | --- | --- | --- | --- |', ...rows].join('\n')
}

/** With the largest errors of the golden checkpoints of each family, in f32. */
function familyTable(): string {
  const { errors, gradients } = goldenRecord()
  const rows = [...FAMILIES].map(([name, { opens, refuses = '' }]) => {
    const golden = ARCHITECTURES.filter((architecture) => familyOf(architecture) === name)
    const worst = (of: (architecture: string) => number[]) =>
      golden.length === 0 ? '' : Math.max(...golden.flatMap(of)).toExponential(1)
    const forward = worst((architecture) => Object.values(errors.f32[architecture]!))
    const backward = worst((architecture) => [gradients[architecture]!])
    return `| \`${name}\` | ${opens} | ${forward} | ${backward} | ${refuses} |`
  })
  const head = '| `model_type` | checkpoints | largest error, rewards | gradients | refused |'
  return [head, '| --- | --- | ---: | ---: | --- |', ...rows].join('\n')
}

function familyNames(): string {
  return [...FAMILIES].map(([name, { opens }]) => `- \`${name}\`: ${opens}`).join('\n')
}

function shapeTable(): string {
  const keys = (names: readonly string[]) => names.map((key) => `\`${key}\``).join(', ')
  const lines = ROW_SHAPES.map(({ name, keys: needed, optional = [], meaning, source }) => {
    const may = optional.length === 0 ? '' : `; may have ${keys(optional)}`
    return `| \`${name}\` | ${keys(needed)}${may} | ${meaning} | ${source} |`
  })
  return ['| shape | keys | what it is | who has it |', '|---|---|---|---|', ...lines].join('\n')
}

async function helpText(command: string[]): Promise<string> {
  const { stdout } = await implexHere([...command, '--help'])
  return `\`\`\`\n${stdout.trimEnd()}\n\`\`\``
}

export interface GoldenRecord {
  implex: string
  bounds: Record<DType, Record<Measure, number>>
  errors: Record<DType, Record<string, Record<Measure, number>>>
  /** Largest error in the norm of a parameter's gradient, in f32. */
  gradients: Record<string, number>
}

export function goldenRecord(): GoldenRecord {
  return JSON.parse(readDoc('bench/results/golden-accuracy.json')) as GoldenRecord
}

function goldenTable(dtype: DType): string {
  return errorTable([...Object.entries(goldenRecord().errors[dtype]), ['bound', BOUNDS[dtype]]])
}

async function badCheckpoints(): Promise<string> {
  const root = temporaryFolder()
  const rows: string[][] = []
  for (const bad of BAD_INPUTS) {
    const folder = join(root, 'checkpoint')
    const error = await provoke(bad, folder)
    rmSync(folder, { recursive: true, force: true })
    if (!(error instanceof ImplexError)) throw new Error(`${bad.name}: no ImplexError, but ${error}`)
    rows.push([bad.name, error.code, error.message.replaceAll(`${root}/`, '').replaceAll(`${repositoryRoot}/`, '')])
  }
  return table('code', rows)
}

async function badData(cases: BadData[], code: string): Promise<string> {
  const rows: string[][] = []
  for (const bad of cases) {
    const said = await bad.provoke()
    if (said.code !== bad.code) throw new Error(`${bad.name}: ${said.code} instead of ${bad.code}: ${said.message}`)
    rows.push([bad.name, said.code, said.message])
  }
  await closeModels()
  return table(code, rows)
}

function table(code: string, rows: string[][]): string {
  const line = (cells: string[]) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`
  return [
    line(['what is wrong', code, 'what is said']),
    '|---|---|---|',
    ...rows.map((cells) => line(cells.map(portable))),
  ].join('\n')
}

/** JSON.parse words its reasons differently in each version of Node, and the folder of the CUDA module is the user's. */
function portable(message: string): string {
  return message
    .replaceAll(repositoryRoot, '...')
    .replace(
      /(not valid JSON)(: | \()(Unexpected|Unterminated|Expected|Bad|Invalid|No number).*?(?=\)?; is the file|\)$|$)/s,
      '$1$2...',
    )
}
