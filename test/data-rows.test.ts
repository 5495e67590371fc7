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

accepted('messages lose fields that the engine has no use for', () => {
  const row = parseRow({ prompt: [{ ...user('p'), name: 'x' }], responses: ['a'] }, 0)
  assert.equal(row.prompt, [user('p')])
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

accepted('null for an absent margin, as tables write it', () => {
  assert.is(parseRow({ prompt: 'p', chosen: 'c', rejected: 'r', margin: null }, 0).margin, undefined)
})
accepted.run()

const refused = suite('rows refused')
const cases: [name: string, row: unknown, message: RegExp][] = [
  ['no object', 'text', /must be a JSON object/],
  ['a list', [], /must be a JSON object/],
  ['null', null, /must be a JSON object/],
  ['an empty object', {}, /"chosen" \(or "responses"\) is missing/],
  ['no chosen', { prompt: 'p', rejected: 'r' }, /"chosen" is missing/],
  ['no rejected', { prompt: 'p', chosen: 'c' }, /"rejected" is missing/],
  ['no prompt with texts', { chosen: 'c', rejected: 'r' }, /"prompt" is missing/],
  ['no prompt in a group', { responses: ['a'] }, /"prompt" is missing/],
  ['a pair and a group at once', { prompt: 'p', chosen: 'c', rejected: 'r', responses: ['a'] }, /not both/],
  ['no responses', { prompt: 'p', responses: [] }, /"responses" must be a list of at least one/],
  ['a text for responses', { prompt: 'p', responses: 'a' }, /"responses" must be a list/],
  [
    'a number for a response',
    { prompt: 'p', responses: ['a', 3] },
    /"responses\[1\]" must be a string or a list of messages/,
  ],
  ['a number for a prompt', { prompt: 3, responses: ['a'] }, /"prompt" must be a string/],
  ['a null prompt', { prompt: null, responses: ['a'] }, /"prompt" must be a string/],
  ['no messages', { prompt: [], responses: ['a'] }, /"prompt" must hold at least one message/],
  ['a text for a message', { prompt: ['p'], responses: ['a'] }, /"prompt\[0\]" must be a message/],
  ['no role', { prompt: [{ content: 'p' }], responses: ['a'] }, /"prompt\[0\].role" must be a string/],
  [
    'parts for a content',
    { prompt: [{ role: 'user', content: [] }], responses: ['a'] },
    /"prompt\[0\].content" must be a string/,
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
