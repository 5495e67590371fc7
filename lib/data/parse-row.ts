/**
 * A row as a user has it, from JSON or from a program, brought into the one form: RowGroup.
 */
import { describe, isPlainObject } from '../core/arguments.js'
import type { Message, TemplateInputs } from '../text/messages.js'
import { Float, parseJson } from '../core/parse-json.js'
import { isPlainly, numberText } from './number-text.js'
import { RowFields } from './row-fields.js'
import { type Prompt, type RowGroup, type RowPlace, rowError } from './rows.js'
import type { RowShapeName, RowsOption } from './shapes/names.js'
import type { ShapedRow } from './shapes/shape.js'
import { planOf, shapeOf } from './shapes/table.js'
import { join, splitConversations, withSystem } from './turns.js'

/** Names that are arguments of transformers' apply_chat_template, or its own variables: a row cannot set them. */
const RESERVED = (
  'messages conversation add_generation_prompt continue_final_message chat_template tokenize padding truncation max_length return_tensors ' +
  'return_dict return_assistant_tokens_mask tokenizer_kwargs'
).split(' ')

/** Checks a row and brings it into the one form. Throws ERR_ROW_INVALID naming line and field. */
export function parseRow(value: unknown, index: number, line?: number, rows: RowsOption = 'auto'): RowGroup {
  return read(value, placeOf(index, line), rows === 'auto' ? undefined : rows).group
}

/** A row from its text. Numbers that a template may print, and the id, keep their digits. */
export function parseRowText(text: string, index: number, line?: number, shape?: RowShapeName): RowGroup {
  const place = placeOf(index, line)
  const { group, exact } = read(parsed(text, place), place, shape)
  const whole = exact ? read(parseJson(text), place, shape).group : group
  if (typeof group.id === 'number' && !isPlainly(text, 'id', group.id)) Object.assign(whole, exactId(text, group.id))
  return whole
}

/**
 * What a row asks, for generation: `prompt`, or `messages` that end with another's turn than the assistant's, or the prompt of a row that
 * has responses too, which are left alone.
 */
export function parsePrompt(value: unknown, index: number, line?: number, rows: RowsOption = 'auto'): Prompt {
  const place = placeOf(index, line)
  const fields = new RowFields(objectOf(value, place), place)
  const key = fields.has('prompt') ? 'prompt' : 'messages'
  if (rows !== 'auto' || !fields.has(key) || (key === 'messages' && fields.has('rejected_response'))) {
    const { prompt, inputs } = parseRow(value, index, line, rows)
    return { prompt, ...(inputs === undefined ? {} : { inputs }) }
  }
  for (const medium of planOf(fields.row).media) refuseMedia(fields, medium)
  const prompt = key === 'prompt' ? fields.text(key) : fields.messages(key)
  if (key === 'messages' && (prompt.at(-1) as Message).role === 'assistant') {
    throw fields.fail('"messages" ends with the assistant\'s turn, so nothing is left to be said; give "prompt"')
  }
  const system = fields.optionalString('system')
  const inputs = inputsOf(fields)
  return {
    prompt: system === undefined ? prompt : withSystem(prompt, system, fields),
    ...(inputs === undefined ? {} : { inputs }),
  }
}

/** A prompt of a row's text, the numbers in it kept as a template may print them. */
export function parsePromptText(text: string, index: number, line?: number, rows: RowsOption = 'auto'): Prompt {
  const prompt = parsePrompt(parsed(text, placeOf(index, line)), index, line, rows)
  const plain = typeof prompt.prompt === 'string' && prompt.inputs === undefined
  return plain ? prompt : parsePrompt(parseJson(text), index, line, rows)
}

function placeOf(index: number, line: number | undefined): RowPlace {
  return line === undefined ? { index } : { index, line }
}

function parsed(text: string, place: RowPlace): unknown {
  try {
    return JSON.parse(text)
  } catch (error) {
    throw rowError('ERR_ROW_INVALID', `not valid JSON: ${(error as Error).message}`, place, error)
  }
}

/** `exact`: the row has values whose numbers must not be rounded, so that a plain JSON.parse is not enough. */
function read(value: unknown, place: RowPlace, name: RowShapeName | undefined): { group: RowGroup; exact: boolean } {
  const fields = new RowFields(objectOf(value, place), place)
  const plan = planOf(fields.row)
  const shape = shapeOf(fields, plan, name)
  for (const key of plan.media) refuseMedia(fields, key)
  const id = idOf(fields)
  const margin = fields.has('margin') ? fields.number('margin') : undefined
  const shaped = (shape.name === 'pair' ? plainPair(fields.row) : undefined) ?? shape.read(fields)
  const { prompt, responses } =
    shaped.prompt === undefined
      ? splitConversations(shaped.responses as Message[][], shape.keys.slice(-2), fields)
      : join(shaped.prompt, shaped.responses, fields)
  const group: RowGroup = { index: place.index, shape: shaped.shape, prompt, responses }
  if (place.line !== undefined) group.line = place.line
  if (id !== undefined) group.id = id
  if (margin !== undefined) group.margin = margin
  if (shaped.steps !== undefined) group.steps = shaped.steps
  if (plan.forTemplate || shaped.tools !== undefined) addForTemplate(group, fields, shaped.tools)
  const unread = plan.unread(shape)
  if (unread.length > 0) group.unread = unread
  return { group, exact: fields.exact }
}

/** Most rows are pairs of sound texts: no need to look further. */
function plainPair({ prompt, chosen, rejected }: Readonly<Record<string, unknown>>): ShapedRow | undefined {
  if (typeof prompt !== 'string' || typeof chosen !== 'string' || typeof rejected !== 'string') return undefined
  if (!prompt.isWellFormed() || !chosen.isWellFormed() || !rejected.isWellFormed()) return undefined
  return { shape: 'pair', prompt, responses: [chosen, rejected] }
}

function addForTemplate(group: RowGroup, fields: RowFields, tools: unknown): void {
  const system = fields.optionalString('system')
  if (system !== undefined) group.prompt = withSystem(group.prompt, system, fields)
  const inputs = inputsOf(fields, tools)
  if (inputs !== undefined) group.inputs = inputs
}

function objectOf(value: unknown, place: RowPlace): Record<string, unknown> {
  if (!isPlainObject(value)) {
    throw rowError('ERR_ROW_INVALID', `a row must be a JSON object, not ${describe(value)}`, place)
  }
  return value instanceof Map ? (Object.fromEntries(value) as Record<string, unknown>) : value
}

function idOf(fields: RowFields): RowGroup['id'] {
  const { id } = fields.row
  if (id === undefined || id === null) return undefined
  if (typeof id === 'string' || typeof id === 'bigint') return id
  if (id instanceof Float || typeof id === 'number') return fields.numberOf(id, 'id')
  throw fields.fail(`"id" must be a string or a number, not ${describe(id)}`)
}

/** Of chat_template_kwargs, `tools` and `documents` take the place of the row's own, as in TRL. */
function inputsOf(fields: RowFields, own?: unknown): TemplateInputs | undefined {
  const { tools: toolsThere, documents: documentsThere, ...variables } = kwargsOf(fields)
  const tools = toolsOf(fields, toolsThere ?? own ?? fields.row.tools)
  const given = documentsThere ?? fields.row.documents ?? undefined
  const documents = given === undefined ? undefined : objects(fields, given, 'documents')
  const hasVariables = Object.keys(variables).length > 0
  if (tools === undefined && documents === undefined && !hasVariables) return undefined
  return {
    ...(tools === undefined ? {} : { tools }),
    ...(documents === undefined ? {} : { documents }),
    ...(hasVariables ? { variables } : {}),
  }
}

/** A list, or its JSON text, as TRL takes both. */
function toolsOf(fields: RowFields, value: unknown): unknown[] | undefined {
  if (value === undefined || value === null || value === '') return undefined
  if (typeof value !== 'string') return objects(fields, value, 'tools')
  let list: unknown
  try {
    list = parseJson(value)
  } catch (error) {
    throw fields.fail(`"tools" is a text, but not valid JSON: ${(error as Error).message}`)
  }
  return objects(fields, list, 'tools')
}

function objects(fields: RowFields, value: unknown, field: string): unknown[] {
  if (!Array.isArray(value)) throw fields.fail(`"${field}" must be a list of objects, not ${describe(value)}`)
  for (const [i, one] of value.entries()) {
    if (!isPlainObject(one)) throw fields.fail(`"${field}[${i}]" must be an object, not ${describe(one)}`)
  }
  return fields.json(value, field) as unknown[]
}

function kwargsOf(fields: RowFields): Record<string, unknown> {
  if (!fields.has('chat_template_kwargs')) return {}
  const value = fields.row.chat_template_kwargs
  if (!isPlainObject(value)) throw fields.fail(`"chat_template_kwargs" must be an object, not ${describe(value)}`)
  const entries = (value instanceof Map ? [...value] : Object.entries(value)).filter(
    ([, one]) => one !== null && one !== undefined,
  ) as [string, unknown][]
  const reserved = entries.find(([key]) => RESERVED.includes(key))
  if (reserved !== undefined) {
    throw fields.fail(`"chat_template_kwargs.${reserved[0]}" is no variable of a template; leave it out`)
  }
  return fields.json(Object.fromEntries(entries), 'chat_template_kwargs') as Record<string, unknown>
}

function refuseMedia(fields: RowFields, key: string): void {
  const value = fields.row[key]
  if (value === '' || (Array.isArray(value) && value.length === 0)) return
  throw fields.fail(`"${key}" is not empty: pictures and sound cannot be read; leave such rows or the key out`)
}

/** A number as id, with the digits that the text has. */
function exactId(text: string, id: number): Pick<RowGroup, 'id' | 'idText'> {
  const digits = numberText(text, 'id') ?? String(id)
  if (/^-?\d+$/.test(digits) && !Number.isSafeInteger(id)) return { id: BigInt(digits) }
  return digits === String(id) ? { id } : { id, idText: digits }
}
