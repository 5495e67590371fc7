/** Row formats: what is accepted, into what form it is brought, and that each refusal names the field. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { parseRow } from '../lib/data/parse-row.js'
import { ImplexError } from '../lib/core/errors.js'

const accepted = suite('rows accepted')
const user = (content: string) => ({ role: 'user', content })
const assistant = (content: string) => ({ role: 'assistant', content })

accepted('a pair of texts', () => {
  assert.equal(parseRow({ id: 'a', prompt: 'p', chosen: 'c', rejected: 'r', margin: 2, other: [1] }, 3, 7), {
    index: 3,
    line: 7,
    id: 'a',
    shape: 'pair',
    prompt: 'p',
    responses: ['c', 'r'],
    margin: 2,
    unread: ['other'],
  })
})

accepted('a group, of one or more', () => {
  assert.equal(parseRow({ prompt: 'p', responses: ['a'] }, 0), {
    index: 0,
    shape: 'group',
    prompt: 'p',
    responses: ['a'],
  })
  assert.equal(parseRow({ id: 5, prompt: 'p', responses: ['a', 'b', 'c'] }, 0).responses.length, 3)
})

accepted('conversations', () => {
  const row = parseRow({ prompt: [user('p')], chosen: [assistant('c')], rejected: [assistant('r')] }, 0)
  assert.equal(row.prompt, [user('p')])
  assert.equal(row.responses, [[assistant('c')], [assistant('r')]])
})

accepted('messages with all their keys', () => {
  const call = { type: 'function', function: { name: 'depth', arguments: { lake: 'long' } } }
  const message = {
    role: 'assistant',
    content: 'I look.',
    name: 'x',
    tool_calls: [call],
    reasoning_content: 'r',
    other: [1],
  }
  const row = parseRow(
    { prompt: [user('p'), message, { role: 'tool', content: '31', tool_call_id: '1' }], responses: ['a'] },
    0,
  )
  assert.equal(row.prompt, [user('p'), message, { role: 'tool', content: '31', tool_call_id: '1' }])
})

accepted('content as text parts, and null or absent content where a turn calls tools', () => {
  const parts = [
    { type: 'text', text: 'a' },
    { type: 'text', text: 'b', cache: true },
  ]
  const calls = { role: 'assistant', tool_calls: [{ function: { name: 'f' } }] }
  const row = parseRow(
    { prompt: [{ role: 'user', content: parts }], responses: [[{ ...calls, content: null }], [calls]] },
    0,
  )
  assert.equal(row.prompt, [{ role: 'user', content: parts }])
  assert.equal(row.responses, [[{ ...calls, content: null }], [calls]])
})

accepted('an implicit prompt: the common beginning', () => {
  const chosen = [user('p'), assistant('a'), user('q'), assistant('c')]
  const rejected = [user('p'), assistant('a'), user('q'), assistant('r')]
  const row = parseRow({ chosen, rejected }, 0)
  assert.equal(row.prompt, chosen.slice(0, 3))
  assert.equal(row.responses, [[assistant('c')], [assistant('r')]])
})

accepted('an implicit prompt of equal conversations ends before the last message', () => {
  const same = [user('p'), assistant('a')]
  const row = parseRow({ chosen: same, rejected: same }, 0)
  assert.equal(row.prompt, [user('p')])
  assert.equal(row.responses, [[assistant('a')], [assistant('a')]])
})

accepted('a text prompt repeated in the responses, as in ultrafeedback_binarized', () => {
  const row = parseRow({ prompt: 'p', chosen: [user('p'), assistant('c')], rejected: [user('p'), assistant('r')] }, 0)
  assert.equal(row.prompt, [user('p')])
  assert.equal(row.responses, [[assistant('c')], [assistant('r')]])
})

accepted('null for whatever is absent, as tables write it', () => {
  const nothing = { id: null, margin: null, responses: null, tools: null, documents: null, system: null, other: null }
  const plain = { prompt: 'p', chosen: 'c', rejected: 'r' }
  assert.equal(parseRow({ ...plain, ...nothing, chat_template_kwargs: null }, 0), parseRow(plain, 0))
  const bare = (message: object) => ({ ...message, tool_calls: null, name: null, reasoning_content: null })
  assert.equal(
    parseRow(
      { prompt: null, chosen: [bare(user('p')), bare(assistant('c'))], rejected: [user('p'), assistant('r')] },
      0,
    ),
    parseRow({ chosen: [user('p'), assistant('c')], rejected: [user('p'), assistant('r')] }, 0),
  )
})

accepted('what a template is given besides messages', () => {
  const tool = { type: 'function', function: { name: 'depth' } }
  const row = { prompt: 'p', responses: ['a'], documents: [{ title: 't', text: 'x' }], system: 'Be brief.' }
  const { inputs, prompt } = parseRow(
    { ...row, tools: [tool], chat_template_kwargs: { enable_thinking: false, gone: null } },
    0,
  )
  assert.equal(inputs, { tools: [tool], documents: row.documents, variables: { enable_thinking: false } })
  assert.equal(prompt, [{ role: 'system', content: 'Be brief.' }, user('p')])
  assert.equal(parseRow({ prompt: 'p', responses: ['a'], tools: JSON.stringify([tool]) }, 0).inputs, { tools: [tool] })
  assert.equal(
    parseRow({ prompt: 'p', responses: ['a'], tools: [], chat_template_kwargs: { tools: [tool] } }, 0).inputs,
    { tools: [tool] },
  )
})

const begun = [{ role: 'system', content: 's' }, user('a'), assistant('b'), user('p')]
const beside: [name: string, prompt: unknown, conversation: { role: string; content: string }[]][] = [
  ['but for white space', 'p ', [user('p')]],
  ['but for a line feed', 'p', [user('p\n')]],
  ['after a system message', 'p', [{ role: 'system', content: 's' }, user('p')]],
  ['after earlier turns', 'p', begun],
  ['as a list without the system message', [user('p')], [{ role: 'system', content: 's' }, user('p')]],
  ['as a list of the last turns', [assistant('b'), user(' p')], begun],
]
for (const [name, prompt, conversation] of beside) {
  accepted(`a prompt beside whole conversations that have it ${name}: they decide`, () => {
    const row = parseRow(
      { prompt, chosen: [...conversation, assistant('c')], rejected: [...conversation, assistant('r')] },
      0,
    )
    assert.equal(row.prompt, conversation)
    assert.equal(row.responses, [[assistant('c')], [assistant('r')]])
  })
}

accepted('turns that differ in any key part the conversations', () => {
  const calling = (lake: string) => ({
    ...assistant(''),
    tool_calls: [{ function: { name: 'depth', arguments: { lake } } }],
  })
  const [chosen, rejected] = ['long', 'round'].map((lake) => [user('p'), calling(lake), assistant('31')])
  const row = parseRow({ chosen, rejected }, 0)
  assert.equal(row.prompt, [user('p')])
  assert.equal(row.responses, [chosen!.slice(1), rejected!.slice(1)])
})
accepted.run()

const refused = suite('rows refused')
const cases: [name: string, row: unknown, message: RegExp][] = [
  ['no object', 'text', /must be a JSON object/],
  ['a list', [], /must be a JSON object/],
  ['null', null, /must be a JSON object/],
  ['an empty object', {}, /no known shape of row has no keys with values: a row is/],
  ['no chosen', { prompt: 'p', rejected: 'r' }, /has the keys "prompt", "rejected": pair lacks "chosen"/],
  ['no rejected', { prompt: 'p', chosen: 'c' }, /has the keys "prompt", "chosen": pair lacks "rejected"/],
  ['no prompt with texts', { chosen: 'c', rejected: 'r' }, /"prompt" is missing/],
  ['no prompt in a group', { responses: ['a'] }, /has the keys "responses": group lacks "prompt"/],
  [
    'a pair and a group at once',
    { prompt: 'p', chosen: 'c', rejected: 'r', responses: ['a'] },
    /fit the shapes pair and group; say which/,
  ],
  ['no responses', { prompt: 'p', responses: [] }, /"responses" must be a list of at least one/],
  ['a text for responses', { prompt: 'p', responses: 'a' }, /"responses" must be a list/],
  [
    'a number for a response',
    { prompt: 'p', responses: ['a', 3] },
    /"responses\[1\]" must be a string or a list of messages/,
  ],
  ['a number for a prompt', { prompt: 3, responses: ['a'] }, /"prompt" must be a string/],
  ['a null prompt', { prompt: null, responses: ['a'] }, /group lacks "prompt"/],
  ['no messages', { prompt: [], responses: ['a'] }, /"prompt" must hold at least one message/],
  ['a text for a message', { prompt: ['p'], responses: ['a'] }, /"prompt\[0\]" must be a message/],
  ['no role', { prompt: [{ content: 'p' }], responses: ['a'] }, /"prompt\[0\].role" must be a string/],
  [
    'no parts for a content',
    { prompt: [{ role: 'user', content: [] }], responses: ['a'] },
    /"prompt\[0\].content" must be a string/,
  ],
  [
    'a picture',
    { prompt: [{ role: 'user', content: [{ type: 'image' }] }], responses: ['a'] },
    /"prompt\[0\].content\[0\]" is a part of type "image"/,
  ],
  ['pictures', { prompt: 'p', responses: ['a'], images: ['a.png'] }, /"images" is not empty/],
  ['null and no tool calls', { prompt: 'p', responses: [[{ role: 'assistant', content: null }]] }, /content" must be/],
  ['no content at all', { prompt: 'p', responses: [[{ role: 'assistant' }]] }, /content" must be/],
  ['an object for tools', { prompt: 'p', responses: ['a'], tools: {} }, /"tools" must be a list of objects/],
  ['broken JSON for tools', { prompt: 'p', responses: ['a'], tools: '[' }, /"tools" is a text, but not valid JSON/],
  ['texts for documents', { prompt: 'p', responses: ['a'], documents: ['d'] }, /"documents\[0\]" must be an object/],
  [
    'an argument of apply_chat_template',
    { prompt: 'p', responses: ['a'], chat_template_kwargs: { tokenize: true } },
    /"chat_template_kwargs.tokenize" is no variable/,
  ],
  [
    'a function in a message',
    { prompt: [{ ...user('p'), tool: () => 1 }], responses: ['a'] },
    /must be a value of JSON/,
  ],
  [
    'two system messages',
    { system: 'a', prompt: [{ role: 'system', content: 'b' }, user('p')], responses: ['a'] },
    /"system" differs from the system message/,
  ],
  [
    'another question in the responses',
    { prompt: 'p', chosen: [user('q'), assistant('c')], rejected: [user('q'), assistant('r')] },
    /do not hold "prompt"/,
  ],
  [
    'half a surrogate pair in a tool call',
    { prompt: [{ ...user('p'), x: { a: '\ud800' } }], responses: ['a'] },
    /half/,
  ],
  ['half a surrogate pair', { prompt: 'a\ud800', responses: ['a'] }, /"prompt" holds half of a surrogate pair/],
  ['an object for an id', { id: {}, prompt: 'p', responses: ['a'] }, /"id" must be a string or a number/],
  ['a text for a margin', { prompt: 'p', chosen: 'c', rejected: 'r', margin: '1' }, /"margin" must be a number/],
  [
    'conversations with nothing in common',
    { chosen: [user('a'), assistant('b')], rejected: [user('c'), assistant('d')] },
    /share no first message/,
  ],
  [
    'conversations that part at the user',
    { chosen: [user('a'), user('b'), assistant('c')], rejected: [user('a'), user('x'), assistant('c')] },
    /part at message 1, which is not the assistant's/,
  ],
]
for (const [name, row, message] of cases) {
  refused(name, () => {
    try {
      parseRow(row, 4, 9)
    } catch (error) {
      assert.instance(error, ImplexError)
      assert.is((error as ImplexError).code, 'ERR_ROW_INVALID')
      assert.is((error as ImplexError).line, 9)
      assert.match((error as ImplexError).message, /^line 9: /)
      assert.match((error as ImplexError).message, message)
      return
    }
    assert.unreachable('was accepted')
  })
}
refused('a row without a line is named by its number', () => {
  assert.throws(() => parseRow({}, 4), /^row 4: /)
})
refused.run()
