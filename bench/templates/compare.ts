/**
 * Template engines against Jinja2: renders every recorded template with every conversation and compares with what Jinja2 gave.
 *
 *   node dist/bench/templates/compare.js RECORDED [--json FILE] [--show COUNT] [NAME=MODULE ...]
 *
 * RECORDED is made by record.py. Without NAME=MODULE only this project's engine is compared; other engines are not dependencies, so
 * install them elsewhere and name their entry files: huggingface=…/@huggingface/jinja/dist/index.js minijinja=…/minijinja_js.js
 */
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { performance } from 'node:perf_hooks'
import { parseArgs } from 'node:util'
import { parseJson } from '../../lib/core/parse-json.js'
import { ENGINES, type Engine } from './engines.js'

interface Rendering {
  conversation: string
  prompt: boolean
  text?: string
  error?: string
}

interface Recorded {
  made_with: Record<string, string>
  tokens: Record<string, string>
  now: string
  templates: { collection: string; file: string; source: string; error?: string; renderings?: Rendering[] }[]
}

interface Conversation {
  name: string
  messages: unknown
  tools?: unknown
  documents?: unknown
  kwargs?: Record<string, unknown>
}

/** The counts of one engine. `lenient` counts what it renders although Jinja2 refuses it. */
interface Tally {
  candidate: string
  version: string
  files: number
  filesWithoutDifference: number
  conversations: number
  equal: number
  refusedByBoth: number
  refused: number
  lenient: number
  different: number
  milliseconds: number
}

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { json: { type: 'string' }, show: { type: 'string', default: '0' } },
})
const [recordFile, ...others] = positionals
if (recordFile === undefined)
  throw new Error('usage: compare.js RECORDED [--json FILE] [--show COUNT] [NAME=MODULE ...]')

const recorded = JSON.parse(readFileSync(recordFile, 'utf8')) as Recorded
const conversationText = readFileSync(
  path.join(import.meta.dirname, '../../../bench/templates/conversations.json'),
  'utf8',
)

/** Each engine gets rows as it would in use: this project's own reader keeps 2.0, JSON.parse does not. */
function conversationsOf(engine: Engine): Map<string, Conversation> {
  const list = (engine.lossless ? parseJson(conversationText) : JSON.parse(conversationText)) as Conversation[]
  return new Map(list.map((conversation) => [conversation.name, conversation]))
}

function contextOf({ messages, tools, documents, kwargs }: Conversation, prompt: boolean): Record<string, unknown> {
  return {
    ...recorded.tokens,
    messages,
    tools: tools ?? null,
    documents: documents ?? null,
    add_generation_prompt: prompt,
    ...kwargs,
  }
}

function attempt<T>(work: () => T): { value?: T; fault?: string } {
  try {
    return { value: work() }
  } catch (cause) {
    return { fault: String((cause as Error)?.message ?? cause).split('\n')[0] as string }
  }
}

async function compare(name: string, module: string | undefined): Promise<Tally> {
  const engine = ENGINES[name]
  if (engine === undefined) throw new Error(`no engine named ${name}; there are ${Object.keys(ENGINES).join(', ')}`)
  const { compile, version } = await engine.load(module, new Date(recorded.now))
  const conversations = conversationsOf(engine)
  const tally: Tally = {
    candidate: name,
    version,
    files: recorded.templates.length,
    filesWithoutDifference: 0,
    conversations: conversations.size,
    equal: 0,
    refusedByBoth: 0,
    refused: 0,
    lenient: 0,
    different: 0,
    milliseconds: 0,
  }
  let shown = Number(options.show)
  for (const { collection, file, source, renderings = [] } of recorded.templates) {
    const started = performance.now()
    const { value: render, fault } = attempt(() => compile(source))
    let same = true
    for (const { conversation, prompt, text, error } of renderings) {
      const context = contextOf(conversations.get(conversation) as Conversation, prompt)
      const result = render === undefined ? { fault } : attempt(() => render(context))
      const verdict = judge(result.value, text)
      tally[verdict]++
      if (verdict === 'equal' || verdict === 'refusedByBoth') continue
      same = false
      if (shown-- > 0)
        console.log(verdict, collection, file, conversation, prompt, { ...result, wanted: text ?? error })
    }
    tally.milliseconds += performance.now() - started
    if (same) tally.filesWithoutDifference++
  }
  tally.milliseconds = Math.round(tally.milliseconds)
  return tally
}

function judge(
  got: string | undefined,
  wanted: string | undefined,
): 'equal' | 'refusedByBoth' | 'refused' | 'lenient' | 'different' {
  if (got === undefined) return wanted === undefined ? 'refusedByBoth' : 'refused'
  if (wanted === undefined) return 'lenient'
  return got === wanted ? 'equal' : 'different'
}

const tallies: Tally[] = []
for (const [name, module] of [
  ['implex', undefined] as const,
  ...others.map((each) => each.split('=') as [string, string]),
]) {
  tallies.push(await compare(name, module))
}
console.table(tallies)
if (options.json !== undefined) {
  const collections: Record<string, number> = {}
  for (const { collection } of recorded.templates) collections[collection] = (collections[collection] ?? 0) + 1
  const renderings = recorded.templates.reduce((sum, { renderings: list = [] }) => sum + list.length, 0)
  const result = {
    madeWith: { ...recorded.made_with, node: process.version },
    collections,
    renderings,
    candidates: tallies,
  }
  writeFileSync(options.json, `${JSON.stringify(result, null, 2)}\n`)
}
