/** JSON Lines: where lines begin and end, what is counted, what a damaged file gives. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import { Readable } from 'node:stream'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { type JsonlOptions, readJsonl } from '../lib/data/jsonl.js'
import type { SourceRow } from '../lib/data/rows.js'
import { rejection } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()

async function rowsOf(bytes: string | Buffer, options?: JsonlOptions): Promise<SourceRow[]> {
  const file = join(folder, 'rows.jsonl')
  writeFileSync(file, bytes)
  return collect(readJsonl(file, options))
}

async function collect(source: AsyncIterable<SourceRow>): Promise<SourceRow[]> {
  const rows: SourceRow[] = []
  for await (const row of source) rows.push(row)
  return rows
}

const lines = suite('JSON Lines')

lines('numbers lines from 1 and rows from 0, blank lines counted as lines only', async () => {
  assert.equal(await rowsOf('{"a":1}\n\n \t\r\n{"a":2}\n'), [
    { index: 0, line: 1, text: '{"a":1}' },
    { index: 1, line: 4, text: '{"a":2}' },
  ])
})

lines('an empty file has no rows; a last line needs no newline', async () => {
  assert.equal(await rowsOf(''), [])
  assert.equal(await rowsOf('\n\n'), [])
  assert.equal(
    (await rowsOf('1\n2')).map((row) => row.text),
    ['1', '2'],
  )
})

lines('tolerates a byte order mark, CRLF and non-Latin text', async () => {
  const rows = await rowsOf('\ufeff{"a":"ж"}\r\n{"a":"🙂"}\r\n')
  assert.equal(
    rows.map((row) => JSON.parse(row.text!).a),
    ['ж', '🙂'],
  )
})

lines('a file of a byte order mark alone has no rows', async () => {
  assert.equal(await rowsOf('\ufeff'), [])
})

lines('lines may lie across reads, and be longer than one', async () => {
  const long = JSON.stringify({ a: 'x'.repeat(200_000) })
  const rows = await rowsOf(`1\n${long}\n2\n`)
  assert.is(rows.length, 3)
  assert.is(rows[1]!.text, long)
  const bytes = Buffer.from('{"a":"жж"}\n{"b":1}\n')
  const single = Readable.from(Array.from(bytes, (byte) => Buffer.from([byte])))
  assert.equal(
    (await collect(readJsonl(single))).map((row) => row.text),
    ['{"a":"жж"}', '{"b":1}'],
  )
})

lines('a line that is no UTF-8 is a row with an error; the rest is read', async () => {
  const rows = await rowsOf(
    Buffer.concat([Buffer.from('1\n'), Buffer.from([0x22, 0xff, 0xfe, 0x22]), Buffer.from('\n2\n')]),
  )
  assert.equal(
    rows.map((row) => row.error?.code),
    [undefined, 'ERR_ROW_INVALID', undefined],
  )
  assert.is(rows[1]!.error!.message, 'line 2: not valid UTF-8')
})

lines('a line beyond the limit is a row with an error, and is not kept', async () => {
  const rows = await rowsOf(`1\n${'x'.repeat(1_000_000)}\n2\n${'y'.repeat(300)}`, { maxLineBytes: 256 })
  assert.equal(
    rows.map((row) => [row.line, row.error?.message]),
    [
      [1, undefined],
      [2, 'line 2: longer than 256 bytes'],
      [3, undefined],
      [4, 'line 4: longer than 256 bytes'],
    ],
  )
})

lines('skipRows keeps the numbers; limit counts from the start', async () => {
  const rows = await rowsOf('a\n\nb\nc\nd\n', { skipRows: 1, limit: 3 })
  assert.equal(
    rows.map((row) => [row.index, row.line, row.text]),
    [
      [1, 3, 'b'],
      [2, 4, 'c'],
    ],
  )
  assert.equal(await rowsOf('a\nb\n', { limit: 0 }), [])
  assert.equal(await rowsOf('a\nb\n', { skipRows: 5 }), [])
})

lines('a file that is not there, and a folder, are ERR_IO naming the path', async () => {
  const absent = (await rejection(collect(readJsonl(join(folder, 'absent.jsonl'))))) as Error & { path?: string }
  assert.is((absent as { code?: string }).code, 'ERR_IO')
  assert.match(absent.message, /absent\.jsonl: there is no such file/)
  assert.match((await rejection(collect(readJsonl(folder)))).message, /it is a folder/)
  assert.match((await rejection(readJsonl(join(folder, 'absent.jsonl')).fingerprint())).message, /no such file/)
})

const OTHERS: [name: string, content: Buffer | string, message: RegExp][] = [
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0]), /compressed with zstd/],
  ['Parquet', 'PAR1\u0015', /is Parquet; write it as JSON Lines/],
]
for (const [name, content, message] of OTHERS) {
  lines(`${name} is refused with what to do`, async () => {
    const file = join(folder, 'other')
    writeFileSync(file, content)
    const error = (await rejection(collect(readJsonl(file)))) as Error & { code?: string; path?: string }
    assert.is(error.code, 'ERR_ROW_INVALID')
    assert.is(error.path, file)
    assert.match(error.message, message)
  })
}

lines('rows bear the shape that is named, and no other name is known', async () => {
  const file = join(folder, 'named.jsonl')
  writeFileSync(file, '{}\n')
  assert.is((await collect(readJsonl(file, { rows: 'nectar' })))[0]!.shape, 'nectar')
  assert.is((await collect(readJsonl(file, { rows: 'auto' })))[0]!.shape, undefined)
  assert.throws(() => readJsonl(file, { rows: 'parquet' as never }), /"rows" must be one of "auto", "pair"/)
})

lines('wrong options are refused at once', () => {
  assert.throws(
    () => readJsonl('x', { limit: -1 }),
    (error: Error) => error instanceof RangeError,
  )
  assert.throws(
    () => readJsonl('x', { skipRows: 'a' as never }),
    (error: Error) => error instanceof TypeError,
  )
})

lines('the fingerprint sees a changed beginning, end and size, and a stream has none', async () => {
  const file = join(folder, 'print.jsonl')
  const print = async (text: string) => {
    writeFileSync(file, text)
    return readJsonl(file).fingerprint()
  }
  const body = 'x'.repeat(300_000)
  const prints = [
    await print(`a${body}b`),
    await print(`c${body}b`),
    await print(`a${body}d`),
    await print(`a${body}xb`),
  ]
  assert.is(new Set(prints).size, 4)
  assert.is(await print(`a${body}b`), prints[0])
  assert.is(await readJsonl(Readable.from([])).fingerprint(), undefined)
  assert.is(await readJsonl('-').fingerprint(), undefined)
})
/** The same bytes in pieces of `size`. */
const inPieces = (bytes: Buffer, size: number) =>
  Readable.from(
    Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size)),
  )

const ARRAY =
  '\ufeff[\n  {"prompt": "a, [b] \\"{c}\\\\", "n": [1, [2, 3]]},\n\n  {"prompt": "\u00fc\ud83d\ude00"}, {}\n, 7 ]\n\n'
const ELEMENTS: [text: string, line: number][] = [
  ['{"prompt": "a, [b] \\"{c}\\\\", "n": [1, [2, 3]]}', 2],
  ['{"prompt": "\u00fc\ud83d\ude00"}', 4],
  ['{}', 4],
  ['7', 5],
]

lines('one JSON array: its elements are rows, with the lines on which they begin, however it is read', async () => {
  for (const size of [1, 2, 3, 7, 1000]) {
    const rows = await collect(readJsonl(inPieces(Buffer.from(ARRAY), size)))
    assert.equal(
      rows.map(({ text, line, index }) => [text!.trim(), line, index]),
      ELEMENTS.map(([text, line], i) => [text, line, i]),
      `in pieces of ${size}`,
    )
  }
  const some = await collect(readJsonl(inPieces(Buffer.from(ARRAY), 5), { skipRows: 1, limit: 3 }))
  assert.equal(
    some.map(({ index }) => index),
    [1, 2],
  )
  assert.equal(await rowsOf('[]'), [])
  assert.equal(await rowsOf('[\n]\n'), [])
})

lines('a JSON array that was cut off, or that is followed by something, is an error with its line', async () => {
  for (const [text, message] of [
    ['[{"a": 1},\n{"b": 2}', /line 2: the JSON array ends before its last bracket/],
    ['[{"a": "]', /ends before its last bracket/],
    ['[{"a": 1}]\n{"b": 2}\n', /line 2: the JSON array goes on behind its end/],
  ] as const) {
    const error = (await rejection(rowsOf(text))) as Error & { code?: string }
    assert.is(error.code, 'ERR_ROW_INVALID')
    assert.match(error.message, message)
  }
})

lines('gzip is unpacked: lines and arrays, members one after another, in any pieces', async () => {
  const packed = Buffer.concat([gzipSync('{"a": 1}\n{"b"'), gzipSync(': 2}\n')])
  for (const size of [1, 3, 1000]) {
    const rows = await collect(readJsonl(inPieces(packed, size)))
    assert.equal(
      rows.map(({ text }) => text),
      ['{"a": 1}', '{"b": 2}'],
    )
  }
  const file = join(folder, 'array.json.gz')
  writeFileSync(file, gzipSync(ARRAY))
  assert.is((await collect(readJsonl(file))).length, ELEMENTS.length)
  assert.is((await collect(readJsonl(file, { limit: 2 }))).length, 2)
})

lines('gzip that was cut off or damaged is ERR_IO', async () => {
  const packed = gzipSync(`${'{"a": 1}\n'.repeat(2000)}`)
  const file = join(folder, 'cut.gz')
  for (const bytes of [
    packed.subarray(0, packed.length - 20),
    Buffer.concat([packed.subarray(0, 30), Buffer.alloc(40, 7)]),
  ]) {
    writeFileSync(file, bytes)
    const error = (await rejection(collect(readJsonl(file)))) as Error & { code?: string }
    assert.is(error.code, 'ERR_IO')
    assert.match(error.message, /cut\.gz/)
  }
})
lines.run()
