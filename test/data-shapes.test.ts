/** Shapes of rows: each known by its keys and by its name, read as its publisher means it; mixed and unknown ones refused by key. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { ImplexError } from '../lib/core/errors.js'
import { parseRow } from '../lib/data/parse-row.js'
import type { RowGroup } from '../lib/data/rows.js'
import { ROW_SHAPE_NAMES, type RowShapeName } from '../lib/data/shapes/names.js'
import { ROW_SHAPES } from '../lib/data/shapes/table.js'
import { repositoryRoot } from './support/shared.js'

const user = (content: string) => ({ role: 'user', content })
const assistant = (content: string) => ({ role: 'assistant', content })
const system = (content: string) => ({ role: 'system', content })

interface Case {
  shape: RowShapeName
  row: Record<string, unknown>
  want: Pick<RowGroup, 'shape' | 'prompt' | 'responses'> & Partial<RowGroup>
}

const pair = (prompt: RowGroup['prompt'], chosen: RowGroup['prompt'], rejected: RowGroup['prompt']): Case['want'] => ({
  shape: 'pair',
  prompt,
  responses: [chosen, rejected],
})
const group = (prompt: RowGroup['prompt'], ...responses: RowGroup['responses']): Case['want'] => ({
  shape: 'group',
  prompt,
  responses,
})

const CASES: Case[] = [
  {
    shape: 'pair', // RewardBench
    row: { prompt: 'q', chosen: 'c', chosen_model: 'm', rejected: 'r', rejected_model: 'n', subset: 'chat', id: 3 },
    want: { ...pair('q', 'c', 'r'), id: 3 },
  },
  {
    shape: 'pair', // ultrafeedback_binarized
    row: {
      prompt: 'q',
      prompt_id: 'x',
      chosen: [user('q'), assistant('c')],
      rejected: [user('q'), assistant('r')],
      messages: [user('q'), assistant('c')],
      score_chosen: 8.5,
      score_rejected: 7,
    },
    want: pair([user('q')], [assistant('c')], [assistant('r')]),
  },
  { shape: 'group', row: { prompt: 'q', responses: ['a', 'b'] }, want: group('q', 'a', 'b') },
  {
    shape: 'implicit',
    row: { chosen: [user('q'), assistant('c')], rejected: [user('q'), assistant('r')], chosen_rating: 5, dataset: 'd' },
    want: pair([user('q')], [assistant('c')], [assistant('r')]),
  },
  { shape: 'completion', row: { prompt: 'q', completion: 'c', label: true }, want: group('q', 'c') },
  {
    shape: 'stepwise', // math_shepherd, as TRL has it
    row: { prompt: 'q', completions: ['a', 'b'], labels: [true, false] },
    want: { ...group('q', 'a\nb\n'), steps: ['a', 'b'] },
  },
  {
    shape: 'lists', // RewardBench 2
    row: { id: '0', prompt: 'q', chosen: ['c'], rejected: ['r', 's', 't'], num_correct: 1, models: ['m'], subset: 'f' },
    want: { ...group('q', 'c', 'r', 's', 't'), id: '0' },
  },
  {
    shape: 'lists', // RM-Bench
    row: { prompt: 'q', chosen: ['c', 'd', 'e'], rejected: ['r', 's', 't'], error_key: [], domain: 'chat' },
    want: group('q', 'c', 'd', 'e', 'r', 's', 't'),
  },
  { shape: 'lists', row: { prompt: 'q', chosen: ['c'], rejected: 'r' }, want: pair('q', 'c', 'r') },
  {
    shape: 'judgebench',
    row: { pair_id: 'x', question: 'q', response_A: 'r', response_B: 'c', label: 'B>A', source: 'law' },
    want: pair('q', 'c', 'r'),
  },
  {
    shape: 'hh-rlhf',
    row: {
      chosen: '\n\nHuman: q\n\nAssistant: a\n\nHuman: Two\nlines?\n\n\nAssistant: c ',
      rejected: '\n\nHuman: q\n\nAssistant: a\n\nHuman: Two\nlines?\n\n\nAssistant: r: "Human: x"',
    },
    want: pair([user('q'), assistant('a'), user('Two\nlines?')], [assistant('c')], [assistant('r: "Human: x"')]),
  },
  {
    shape: 'hh-rlhf-prompt',
    row: { prompt: '\n\nHuman: q\n\nAssistant:', response: ' c', chosen: ' c', rejected: ' r' },
    want: pair([user('q')], [assistant('c')], [assistant('r')]),
  },
  {
    shape: 'helpsteer2',
    row: {
      prompt: 'q',
      response_1: 'c',
      response_2: 'r',
      preference_strength: -2,
      preference_statement: 's',
      split: 't',
    },
    want: pair('q', 'c', 'r'),
  },
  {
    shape: 'helpsteer2',
    row: {
      prompt: 'q\n<extra_id_1>Assistant\na\n<extra_id_1>User\nAnd b?',
      response_1: 'r',
      response_2: 'c',
      preference_strength: 1,
    },
    want: pair([user('q'), assistant('a'), user('And b?')], 'c', 'r'),
  },
  {
    shape: 'helpsteer3',
    row: { context: [user('q')], response1: 'r', response2: 'c', overall_preference: 3, individual_preference: [] },
    want: pair([user('q')], [assistant('c')], [assistant('r')]),
  },
  {
    shape: 'shp',
    row: { post_id: 'p', history: 'q', human_ref_A: 'r', human_ref_B: 'c', labels: 0, score_A: 1, score_ratio: 2.0 },
    want: pair('q', 'c', 'r'),
  },
  {
    shape: 'pku-saferlhf',
    row: { prompt: 'q', response_0: 'c', response_1: 'r', better_response_id: 0, safer_response_id: 1 },
    want: pair('q', 'c', 'r'),
  },
  {
    shape: 'nectar',
    row: {
      prompt: '\n\nHuman: q\n\nAssistant: a\n\nHuman: And?\n\nAssistant: ',
      answers: [
        { answer: 'b', model: 'm', rank: 2 },
        { answer: 'a', model: 'n', rank: 1 },
      ],
      num_responses: 2,
      good_natured: true,
    },
    want: group([user('q'), assistant('a'), user('And?')], 'b', 'a'),
  },
  { shape: 'nectar', row: { prompt: 'q', answers: { answer: ['a', 'b'], rank: [1, 2] } }, want: group('q', 'a', 'b') },
  {
    shape: 'ultrafeedback',
    row: {
      source: 's',
      instruction: 'q',
      models: [],
      completions: [{ response: 'a', overall_score: 3 }, { response: 'b' }],
    },
    want: group('q', 'a', 'b'),
  },
  {
    shape: 'argilla',
    row: { instruction: 'q', chosen_response: 'c', rejected_response: 'r', chosen_avg_rating: 4 },
    want: pair('q', 'c', 'r'),
  },
  {
    shape: 'orca',
    row: { system: 's', question: 'q', chosen: 'c', rejected: 'r' },
    want: pair([system('s'), user('q')], 'c', 'r'),
  },
  {
    shape: 'distilabel-orca',
    row: { input: 'q', chosen: 'c', rejected: 'r', status: 'tie' },
    want: pair('q', 'c', 'r'),
  },
  {
    shape: 'alpaca',
    row: { instruction: 'q', input: 'x', chosen: 'c', rejected: 'r', system: '', history: [['a', 'b']] },
    want: pair([user('a'), assistant('b'), user('q\nx')], [assistant('c')], [assistant('r')]),
  },
  { shape: 'alpaca-output', row: { instruction: 'q', input: '', output: ['c', 'r'] }, want: pair('q', 'c', 'r') },
  { shape: 'alpaca-output', row: { instruction: 'q', output: 'c' }, want: group('q', 'c') },
  {
    shape: 'sharegpt',
    row: {
      conversations: [
        { from: 'system', value: 's' },
        { from: 'human', value: 'q' },
        { from: 'function_call', value: '{"name": "depth", "arguments": {"lake": "long"}}' },
        { from: 'observation', value: '31' },
      ],
      chosen: { from: 'gpt', value: 'c' },
      rejected: { from: 'gpt', value: 'r' },
    },
    want: pair(
      [
        system('s'),
        user('q'),
        {
          role: 'assistant',
          content: null,
          tool_calls: [{ type: 'function', function: { name: 'depth', arguments: { lake: 'long' } } }],
        },
        { role: 'tool', content: '31' },
      ],
      [assistant('c')],
      [assistant('r')],
    ),
  },
  {
    shape: 'ms-swift',
    row: { messages: [user('a'), assistant('b'), user('q'), assistant('c')], rejected_response: 'r' },
    want: pair([user('a'), assistant('b'), user('q')], [assistant('c')], [assistant('r')]),
  },
  {
    shape: 'ms-swift-messages',
    row: { messages: [user('q'), assistant('c')], rejected_messages: [user('q'), assistant('r')] },
    want: pair([user('q')], [assistant('c')], [assistant('r')]),
  },
  {
    shape: 'ms-swift-query',
    row: { system: 's', query: 'q', response: 'c', rejected_response: 'r', history: [] },
    want: pair([system('s'), user('q')], 'c', 'r'),
  },
  {
    shape: 'openai',
    row: {
      input: { messages: [user('q')], tools: [{ type: 'function' }], parallel_tool_calls: true },
      preferred_output: [assistant('c')],
      non_preferred_output: [assistant('r')],
    },
    want: { ...pair([user('q')], [assistant('c')], [assistant('r')]), inputs: { tools: [{ type: 'function' }] } },
  },
]

/** A text response beside messages is one of the assistant's turns either way. */
function asTurns(one: RowGroup): RowGroup {
  if (typeof one.prompt === 'string') return one
  return { ...one, responses: one.responses.map((text) => (typeof text === 'string' ? [assistant(text)] : text)) }
}

/** Those that `auto` takes as another one. */
const ONLY_BY_NAME: RowShapeName[] = ['hh-rlhf-prompt']

const known = suite('row shapes')
known('every name has its shape, a case here, and a line in the documents', () => {
  assert.equal(ROW_SHAPES.map(({ name }) => name).sort(), [...ROW_SHAPE_NAMES].sort())
  assert.equal([...new Set(CASES.map(({ shape }) => shape))].sort(), [...ROW_SHAPE_NAMES].sort())
  const formats = readFileSync(join(repositoryRoot, 'docs/formats.md'), 'utf8')
  for (const name of ROW_SHAPE_NAMES) assert.match(formats, `| \`${name}\` |`)
})

for (const [i, { shape, row, want }] of CASES.entries()) {
  known(`${shape}, case ${i}: its keys tell, and its name agrees`, () => {
    for (const rows of ONLY_BY_NAME.includes(shape) ? [shape] : (['auto', shape] as const)) {
      assert.equal(asTurns(parseRow(row, 0, undefined, rows)), asTurns({ index: 0, ...want }), rows)
    }
  })
  known(`${shape}, case ${i}: null in the columns of all other shapes changes nothing`, () => {
    const nulls = Object.fromEntries(
      ROW_SHAPES.flatMap(({ keys, optional = [] }) => [...keys, ...optional].map((key) => [key, null])),
    )
    assert.equal(
      asTurns(parseRow({ ...nulls, ...row }, 0, undefined, ONLY_BY_NAME.includes(shape) ? shape : 'auto')),
      asTurns({ index: 0, ...want }),
    )
  })
}

known('a key that nothing reads is named, whatever the shape; those known to be about the row are not', () => {
  for (const { row, shape } of CASES) assert.is(parseRow(row, 0, undefined, shape).unread, undefined)
  for (const { row, shape } of CASES) {
    assert.equal(parseRow({ ...row, annotator_remark: 'x' }, 0, undefined, shape).unread, ['annotator_remark'])
  }
})
known('a prompt that reads like a dialogue stays a text unless the shape is named', () => {
  const prompt = '\n\nHuman: q\n\nAssistant:'
  assert.is(parseRow({ prompt, chosen: 'c', rejected: 'r' }, 0).prompt, prompt)
})
known.run()

const refused = suite('row shapes refused')
const WRONG: [name: string, row: Record<string, unknown>, message: RegExp, rows?: RowShapeName][] = [
  [
    'mixed',
    { prompt: 'q', chosen: 'c', rejected: 'r', responses: ['a'] },
    /keys "prompt", "chosen", .* pair and group/,
  ],
  ['mixed with another', { prompt: 'q', answers: ['a'], completion: 'c' }, /completion and nectar/],
  ['unknown', { question: 'q', answer: 'a' }, /has the keys "question", "answer": orca lacks "chosen", "rejected"/],
  ['unknown keys only', { text: 'x' }, /has the keys "text": a row is \{prompt, chosen, rejected\}/],
  ['values of no shape', { chosen: 1, rejected: 2 }, /are those of implicit or hh-rlhf, but not their values/],
  ['texts that are no dialogues', { chosen: 'c', rejected: 'r' }, /"prompt" is missing, and "chosen" is no dialogue/],
  ['a dialogue without an answer', { chosen: '\n\nHuman: q', rejected: '\n\nHuman: q' }, /must end with a turn/],
  ['a key that the named shape needs', { prompt: 'q', chosen: 'c', rejected: 'r' }, /"answers" is missing/, 'nectar'],
  [
    'neither better',
    { context: 'q', response1: 'a', response2: 'b', overall_preference: 0 },
    /neither response is better/,
  ],
  ['neither better, by label', { question: 'q', response_A: 'a', response_B: 'b', label: 'A=B' }, /neither response/],
  ['no choice', { history: 'q', human_ref_A: 'a', human_ref_B: 'b', labels: 2 }, /"labels" must be 0 or 1, not 2/],
  [
    'a speaker unknown',
    { conversations: [{ from: 'x', value: 'q' }], chosen: 'c', rejected: 'r' },
    /\.from" must be one of/,
  ],
  ['no answer at the end', { messages: [user('q')], rejected_response: 'r' }, /"messages" must end with the assistant/],
  [
    'history of one',
    { instruction: 'q', output: 'a', history: [['x']] },
    /"history\[0\]" must be \[question, answer\]/,
  ],
  ['three outputs', { instruction: 'q', output: ['a', 'b', 'c'] }, /"output" must be one response/],
]
for (const [name, row, message, rows] of WRONG) {
  refused(name, () => {
    try {
      parseRow(row, 0, 5, rows)
    } catch (error) {
      assert.instance(error, ImplexError)
      assert.is((error as ImplexError).code, 'ERR_ROW_INVALID')
      assert.match((error as ImplexError).message, message)
      return
    }
    assert.unreachable('was accepted')
  })
}
refused.run()
