/** JSON without loss: what JSON.parse would change, and that everything else is what JSON.parse gives. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { Float, parseJson } from '../lib/core/parse-json.js'

const json = suite('parseJson')

json('floats with an integral value, large integers and -0', () => {
  const list = parseJson(
    '[2.0, 2, -2.00, 1e3, 1E+2, 2.5, -0, -0.0, 0.0, 1e-7, 12345678901234567890, -9007199254740993, 9007199254740991, 1.0000000000000000000001, 12345678.000000001, 1e400, 123456789012345678.5]',
  )
  const float = (value: number) => new Float(value)
  assert.equal(list, [
    float(2),
    2,
    float(-2),
    float(1000),
    float(100),
    2.5,
    0,
    float(-0),
    float(0),
    1e-7,
    12345678901234567890n,
    -9007199254740993n,
    9007199254740991,
    float(1),
    12345678.000000002,
    Number.POSITIVE_INFINITY,
    float(123456789012345680),
  ])
  assert.ok(Object.is((list as unknown[])[6], 0))
  assert.ok(Object.is(Number((list as unknown[])[7]), -0))
})

json('the order of keys: a Map only where a plain object would change it', () => {
  assert.equal(parseJson('{"1": 1, "2": 2.0}'), { 1: 1, 2: new Float(2) })
  assert.equal(
    parseJson('{"b": 1, "1": 2}'),
    new Map([
      ['b', 1],
      ['1', 2],
    ]),
  )
  assert.equal(
    [...(parseJson('{"2" : 0, "1": 0, "2": 3.0}') as Map<string, unknown>)],
    [
      ['2', new Float(3)],
      ['1', 0],
    ],
  )
  const object = parseJson('{"__proto__": {"x": 2.0}, "toString": 1.0}') as object
  assert.equal(Object.keys(object), ['__proto__', 'toString'])
  assert.is(Object.getPrototypeOf(object), Object.prototype)
})

json('a Float writes itself as a number and counts as one', () => {
  assert.is(JSON.stringify({ a: parseJson('2.0') }), '{"a":2}')
  assert.is(Number(parseJson('2.0')) + 1, 3)
})

json('all else as JSON.parse, its errors too', () => {
  const texts = [
    '{"a": [1, "2.0 \\" 1e5 \\\\", {"é\\u00e9\\ud83d": null}], "b": {}, "c": [], "d": [[], {}], "e": true, "f": false, "1e5": "x"}',
    ' [ 1 , 2.5 ,\n"9007199254740993"\t] ',
    '"2.0"',
    '-1.5',
    'null',
    '{"k": "12345678901234567890: 2.0", "l": [-1.25e-3]}',
  ]
  for (const text of texts) assert.equal(parseJson(text), JSON.parse(text), text)
  for (const text of ['', '{', '[1,]', '2.', '01', '[2.0, nope]', '{"a" 2.0}', '"\n2.0"', 'NaN']) {
    assert.throws(
      () => parseJson(text),
      (error: unknown) => error instanceof SyntaxError,
      text,
    )
  }
})

json.run()
