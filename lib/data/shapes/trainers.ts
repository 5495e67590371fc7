/**
 * Shapes that other trainers read: LLaMA-Factory's alpaca and ShareGPT forms, ms-swift's, and OpenAI's for preference fine-tuning.
 */
import { describe, isPlainObject } from '../../core/arguments.js'
import type { Message } from '../../text/messages.js'
import { parseJson } from '../../core/parse-json.js'
import type { RowFields } from '../row-fields.js'
import { assistant, type RowShape, user } from './shape.js'

export const trainerShapes: readonly RowShape[] = [
  {
    name: 'alpaca',
    keys: ['instruction', 'chosen', 'rejected'],
    optional: ['input', 'history'],
    without: ['prompt', 'question'],
    fits: ({ chosen, rejected }) => typeof chosen === 'string' && typeof rejected === 'string',
    meaning: 'a preference pair; the prompt is `instruction`, a line feed and `input`, after the turns of `history`',
    source: 'LLaMA-Factory (alpaca form)',
    read: (fields) => ({
      shape: 'pair',
      prompt: instruction(fields),
      responses: [fields.text('chosen'), fields.text('rejected')],
    }),
  },
  {
    name: 'alpaca-output',
    keys: ['instruction', 'output'],
    optional: ['input', 'history'],
    meaning: 'as alpaca, with [chosen, rejected] in `output`; a text there is a group of one response',
    source: 'LLaMA-Factory (older alpaca form), Stanford Alpaca',
    read: (fields) => {
      const output = fields.value('output')
      const responses = (Array.isArray(output) ? output : [output]).map((one, i) => fields.textOf(one, `output[${i}]`))
      if (responses.length > 2) throw fields.fail(`"output" must be one response, or the chosen and the rejected one`)
      return { shape: responses.length === 2 ? 'pair' : 'group', prompt: instruction(fields), responses }
    },
  },
  {
    name: 'sharegpt',
    keys: ['conversations', 'chosen', 'rejected'],
    without: ['prompt'],
    fits: ({ chosen, rejected }) => !Array.isArray(chosen) && !Array.isArray(rejected),
    meaning:
      'messages as `from` (human, gpt, system, observation, function_call) and `value`; chosen and rejected are one message each',
    source: 'LLaMA-Factory (ShareGPT form)',
    read: (fields) => ({
      shape: 'pair',
      prompt: fields.list('conversations').map((one, i) => turn(one, `conversations[${i}]`, fields)),
      responses: ['chosen', 'rejected'].map((key) => {
        const value = fields.value(key)
        return [typeof value === 'string' ? assistant(fields.string(key)) : turn(value, key, fields)]
      }),
    }),
  },
  {
    name: 'ms-swift',
    keys: ['messages', 'rejected_response'],
    meaning:
      'a conversation that ends with the chosen response; `rejected_response` takes the place of its last message, or as a list of messages of what follows the last user',
    source: 'ms-swift',
    read: (fields) => {
      const chosen = fields.messages('messages')
      if (chosen.length < 2 || chosen.at(-1)!.role !== 'assistant') {
        throw fields.fail('"messages" must end with the assistant\'s turn, which is the chosen response')
      }
      const rejected = fields.text('rejected_response')
      const end =
        typeof rejected === 'string' ? chosen.length - 1 : chosen.findLastIndex(({ role }) => role === 'user') + 1
      return { shape: 'pair', prompt: chosen.slice(0, end), responses: [chosen.slice(end), answerOf(rejected)] }
    },
  },
  {
    name: 'ms-swift-messages',
    keys: ['messages', 'rejected_messages'],
    meaning: 'two whole conversations; their common beginning is the prompt',
    source: 'ms-swift',
    read: (fields) => ({
      shape: 'pair',
      responses: [fields.messages('messages'), fields.messages('rejected_messages')],
    }),
  },
  {
    name: 'ms-swift-query',
    keys: ['query', 'response', 'rejected_response'],
    optional: ['history'],
    meaning: 'a preference pair after the turns of `history`',
    source: 'ms-swift',
    read: (fields) => ({
      shape: 'pair',
      prompt: afterHistory(fields.string('query'), fields),
      responses: [fields.text('response'), fields.text('rejected_response')],
    }),
  },
  {
    name: 'openai',
    keys: ['input', 'preferred_output', 'non_preferred_output'],
    meaning: 'a preference pair; the prompt is `messages` of `input`, with its `tools`',
    source: "OpenAI's preference fine-tuning",
    read: (fields) => {
      const input = fields.value('input')
      if (!isPlainObject(input)) throw fields.fail(`"input" must be an object with "messages", not ${describe(input)}`)
      return {
        shape: 'pair',
        prompt: fields.messagesOf(input.messages, 'input.messages'),
        responses: [fields.messages('preferred_output'), fields.messages('non_preferred_output')],
        tools: input.tools,
      }
    },
  },
]

function answerOf(text: string | Message[]): Message[] {
  return typeof text === 'string' ? [assistant(text)] : text
}

function instruction(fields: RowFields): string | Message[] {
  const input = fields.optionalString('input')
  return afterHistory(fields.string('instruction') + (input === undefined ? '' : `\n${input}`), fields)
}

/** The last question as it is, or after the questions and answers of `history`. */
function afterHistory(question: string, fields: RowFields): string | Message[] {
  if (!fields.has('history')) return question
  const history = fields.row['history']
  if (!Array.isArray(history))
    throw fields.fail(`"history" must be a list of [question, answer], not ${describe(history)}`)
  if (history.length === 0) return question
  const turns = history.flatMap((round: unknown, i) => {
    if (Array.isArray(round) && round.length === 2 && round.every((one) => typeof one === 'string')) {
      const [asked, answered] = round.map((one: string) => fields.unicode(one, `history[${i}]`)) as [string, string]
      return [user(asked), assistant(answered)]
    }
    throw fields.fail(`"history[${i}]" must be [question, answer], not ${describe(round)}`)
  })
  return [...turns, user(question)]
}

const ROLES: Readonly<Record<string, string>> = {
  human: 'user',
  user: 'user',
  gpt: 'assistant',
  chatgpt: 'assistant',
  assistant: 'assistant',
  system: 'system',
  observation: 'tool',
  tool: 'tool',
}

/** A message in ShareGPT's form, or in the usual one. */
function turn(value: unknown, field: string, fields: RowFields): Message {
  if (!isPlainObject(value) || value.from === undefined || value.from === null) return fields.message(value, field)
  const { from, value: said, ...rest } = value
  if (from === 'function_call') return calls(said, field, fields)
  const role = typeof from === 'string' ? ROLES[from] : undefined
  if (role === undefined) {
    throw fields.fail(
      `"${field}.from" must be one of ${Object.keys(ROLES).join(', ')}, function_call, not ${describe(from)}`,
    )
  }
  return fields.message({ ...rest, role, content: said }, field)
}

/** A turn that calls tools: `value` is JSON, one {name, arguments} or a list of them. */
function calls(value: unknown, field: string, fields: RowFields): Message {
  let parsed: unknown
  try {
    parsed = typeof value === 'string' ? parseJson(value) : undefined
  } catch {
    parsed = undefined
  }
  const list = (Array.isArray(parsed) ? parsed : [parsed]) as unknown[]
  if (list.length === 0 || !list.every((one) => isPlainObject(one) && typeof one.name === 'string')) {
    throw fields.fail(
      `"${field}.value" of a function_call must be JSON with "name" and "arguments", not ${describe(value)}`,
    )
  }
  return fields.message(
    { role: 'assistant', content: null, tool_calls: list.map((one) => ({ type: 'function', function: one })) },
    field,
  )
}
