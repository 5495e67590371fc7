/** Nothing of a row is lost on its way to the template or to the output: fields, numbers, ids; and what nobody reads is counted. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Float } from '../lib/core/parse-json.js'
import { encodeRow, type EncodeSettings } from '../lib/data/encode.js'
import { EncodePool } from '../lib/data/encode-pool.js'
import { isPlainly, numberText } from '../lib/data/number-text.js'
import { parsePromptText, parseRowText } from '../lib/data/parse-row.js'
import { formatRow } from '../lib/data/row-lines.js'
import type { SourceRow } from '../lib/data/rows.js'
import { rowSource } from '../lib/data/sources.js'
import { UnreadCounts } from '../lib/data/unread.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { temporaryFolder } from './support/tmp.js'

const path = join(temporaryFolder(), 'checkpoint')
await writeTinyCheckpoint(path)
const template = join(temporaryFolder(), 'whole.jinja')
writeFileSync(
  template,
  `{%- if quiet is defined and quiet %}quiet {% endif %}{%- if tools %}{% for t in tools %}[{{ t.function.name }}]{% endfor %}{% endif %}
{%- if documents %}{% for d in documents %}<{{ d.title }}>{% endfor %}{% endif %}
{%- for m in messages %}{{ m.role }}{% if m.name %}({{ m.name }}){% endif %}: {% if m.reasoning_content %}{{ m.reasoning_content }}; {% endif %}
{%- if m.content is string %}{{ m.content }}{% elif m.content %}{% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}
{%- if m.tool_calls %}{% for c in m.tool_calls %}{{ c.function.name }} {{ c.function.arguments | tojson }}{% endfor %}{% endif %}.
{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}`,
)
const SETTINGS: EncodeSettings = {
  kind: 'explicit',
  border: 'whole',
  onLong: 'error',
  contextLength: 256,
  vocabularySize: 512,
}
const user = { role: 'user', content: 'Depth?' }
const calling = (lake: string) => ({
  role: 'assistant',
  content: null,
  tool_calls: [{ type: 'function', function: { name: 'depth', arguments: { lake } } }],
})
const answer = { role: 'assistant', content: '31 m' }

const whole = suite('whole rows')
const encoder = await RowEncoder.load({ path, template })

function textsOf(row: Record<string, unknown>): string[] {
  const { prompt, responses, inputs } = parseRowText(JSON.stringify(row), 0)
  return responses.map((response) => encoder.renderConversation(prompt, response, inputs))
}

const RENDERED: [name: string, row: Record<string, unknown>, texts: string[]][] = [
  [
    'a turn that only calls a tool is a response',
    { prompt: [user], chosen: [calling('long')], rejected: [calling('round')] },
    ['long', 'round'].map((lake) => `user: Depth?.\nassistant: depth {"lake": "${lake}"}.\n`),
  ],
  [
    'tool calls and names in the prompt',
    { prompt: [user, calling('long'), { role: 'tool', name: 'depth', content: '31' }], responses: [[answer]] },
    ['user: Depth?.\nassistant: depth {"lake": "long"}.\ntool(depth): 31.\nassistant: 31 m.\n'],
  ],
  [
    'reasoning',
    { prompt: [user], responses: [[{ ...answer, reasoning_content: 'I recall it' }]] },
    ['user: Depth?.\nassistant: I recall it; 31 m.\n'],
  ],
  [
    'tools, documents, variables and a system message',
    {
      prompt: 'Depth?',
      responses: ['31 m'],
      system: 'Be brief',
      tools: [{ type: 'function', function: { name: 'depth' } }],
      documents: [{ title: 'Lakes', text: '' }],
      chat_template_kwargs: { quiet: true },
    },
    ['quiet [depth]<Lakes>system: Be brief.\nuser: Depth?.\nassistant: 31 m.\n'],
  ],
  [
    'content as parts',
    {
      prompt: [
        {
          role: 'user',
          content: [
            { type: 'text', text: 'Dep' },
            { type: 'text', text: 'th?' },
          ],
        },
      ],
      responses: ['31 m'],
    },
    ['user: Depth?.\nassistant: 31 m.\n'],
  ],
]
for (const [name, row, texts] of RENDERED) whole(`the template sees ${name}`, () => assert.equal(textsOf(row), texts))

whole('two rows that differ in any one field get other ids', () => {
  const base = { prompt: [user], responses: [[answer]] }
  const others = [
    { ...base, system: 's' },
    { ...base, tools: [{ function: { name: 'f' } }] },
    { ...base, documents: [{ title: 't' }] },
    { ...base, chat_template_kwargs: { quiet: true } },
    { prompt: [{ ...user, name: 'n' }], responses: [[answer]] },
    { prompt: [user], responses: [[{ ...answer, reasoning_content: 'r' }]] },
    { prompt: [user], responses: [[{ ...answer, tool_calls: calling('x').tool_calls }]] },
  ]
  const ids = [base, ...others].map((row) => {
    const encoded = encodeRow(encoder, { index: 0, text: JSON.stringify(row) }, SETTINGS)
    assert.is(encoded.error, undefined)
    return [...encoded.prompt, -1, ...encoded.responses[0]!].join(' ')
  })
  assert.is(new Set(ids).size, ids.length)
})

whole('numbers reach the text of the template as they were written', () => {
  const written = '{"a": 2.0, "b": 12345678901234567890, "c": 2, "d": 1e3, "2": 0.1}'
  const call = `{"role": "assistant", "content": null, "tool_calls": [{"function": {"name": "f", "arguments": ${written}}}]}`
  const { prompt, responses, inputs } = parseRowText(`{"prompt": "p", "responses": [[${call}]]}`, 0)
  const [before, rendered] = [
    encoder.renderPrompt(prompt, inputs),
    encoder.renderConversation(prompt, responses[0]!, inputs),
  ]
  assert.is(rendered.slice(before.length), `f ${written.replace('1e3', '1000.0')}.\n`)
})

whole('numbers that a template may print keep what they were', () => {
  const row =
    `{"prompt": "p", "responses": ["a"], "chat_template_kwargs": {"x": 2.0, "y": 12345678901234567890, "z": 2},
    "tools": "[{\\"max\\": 1.0}]"}`.replaceAll('\n', '')
  const { inputs } = parseRowText(row, 0)
  assert.equal(inputs?.variables, { x: new Float(2), y: 12345678901234567890n, z: 2 })
  assert.equal(inputs?.tools, [{ max: new Float(1) }])
  const prompt = parsePromptText('{"prompt": [{"role": "user", "content": "p", "n": 3.0}], "rejected": 1}', 0)
  assert.equal(prompt, { prompt: [{ role: 'user', content: 'p', n: new Float(3) }] })
  const beginning = (n: string) => `{"role":"user","content":"p","n":${n}},`
  const [first, second] = ['c', 'r'].map((text) => `{"role":"assistant","content":"${text}"}]`)
  const pair = (n: string) => `{"chosen": [${beginning('2.0')}${first}, "rejected": [${beginning(n)}${second}}`
  assert.is(parseRowText(pair('2.0'), 0).prompt.length, 1)
  assert.throws(() => parseRowText(pair('2'), 0), /share no first message/)
})
whole.run()

const ids = suite('ids')
for (const digits of [
  '7',
  '-3769810906015359825',
  '9007199254740993',
  '53480665984854609557',
  '1.0',
  '1.50',
  '1e3',
  '0',
  '"7"',
  '"a\\u00e9"',
]) {
  ids(`${digits} comes out as it came in`, () => {
    for (const text of [
      `{"id":${digits},"prompt":"p","chosen":"c","rejected":"r"}`,
      `{"prompt": "p", "chosen": "c", "rejected": "\\"id\\": 5", "id" : ${digits} }`,
      `{"prompt": [{"role": "user", "content": "p", "id": 5}], "id": ${digits}, "chosen": "c", "rejected": "r"}`,
    ]) {
      const { id, idText } = parseRowText(text, 0)
      const facts = { shape: 'pair', rewards: [2, 1], promptTokens: 1, tokens: [1, 1] } as const
      const line = formatRow(
        { index: 0, ...facts, rewards: [2, 1], tokens: [1, 1], id: id!, ...(idText && { idText }) },
        false,
      )
      const want = digits.startsWith('"') ? JSON.stringify(JSON.parse(digits)) : digits
      assert.ok(line.startsWith(`{"id":${want},"index":0,`), line)
      JSON.parse(line)
    }
  })
}
ids('of a key given twice the last counts, as in JSON.parse', () => {
  assert.is(numberText('{"id": 1, "x": {"id": 2}, "i\\u0064": 3.0, "y": "id"}', 'id'), '3.0')
  assert.is(numberText('{"x": {"id": 2}}', 'id'), undefined)
  assert.not(isPlainly('{"x": {"id": 3}, "id": 3.0}', 'id', 3))
})
ids.run()

const unread = suite('what nobody reads')
async function countsOf(rows: SourceRow['value'][], options: { template?: string }, kind: EncodeSettings['kind']) {
  const counts = new UnreadCounts()
  const pool = await EncodePool.start({ path, ...options })
  const encoded = []
  try {
    for await (const chunk of pool.encode(rowSource(rows as never).chunks(), { ...SETTINGS, kind }, counts))
      encoded.push(...chunk)
  } finally {
    pool.close()
  }
  return { counts: Object.fromEntries(counts.entries), encoded, counter: counts }
}

unread('is counted by key and told once', async () => {
  const row = { prompt: 'p', chosen: 'c', rejected: 'r', source: 's', margin: 1 }
  const { counts, counter } = await countsOf([row, { ...row, note: 1 }, { ...row, note: 2, mood: 'x' }], {}, 'implicit')
  assert.equal(counts, { note: 2, mood: 1 })
  const told = new Set<string>()
  assert.match(
    counter.message('a.jsonl', told) ?? '',
    /^a\.jsonl: nothing reads these keys: note \(2 rows\), mood \(1 row\); docs/,
  )
  assert.is(counter.message('a.jsonl', told), undefined)
})

unread('whatever a template that shows texts leaves out is in the count', async () => {
  const row = {
    prompt: [user, { ...answer, ...{ tool_calls: calling('x').tool_calls } }, user],
    responses: [[{ ...answer, reasoning_content: 'r' }]],
    tools: [{ function: { name: 'f' } }],
    chat_template_kwargs: { quiet: true },
  }
  const left = {
    tools: 1,
    chat_template_kwargs: 1,
    'tool_calls (of messages)': 1,
    'reasoning_content (of messages)': 1,
  }
  assert.equal((await countsOf([row], { template }, 'implicit')).counts, {})
  assert.equal((await countsOf([row], { template: 'default' }, 'implicit')).counts, left)
  assert.equal((await countsOf([row], { template }, 'generative')).counts, left)
})

unread('a response of which nothing would be left is an error', async () => {
  for (const [options, kind] of [
    [{ template: 'default' }, 'implicit'],
    [{ template: 'none' }, 'explicit'],
    [{ template }, 'generative'],
  ] as const) {
    const { encoded } = await countsOf([{ prompt: 'p', responses: [[calling('x')]] }], options, kind)
    assert.is(encoded[0]!.error?.code, 'ERR_RESPONSE_EMPTY')
    assert.match(encoded[0]!.error!.message, /no text, only tool_calls/)
  }
})
unread.run()
