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
  ['gzip', gzipSync('{"prompt":"p"}\n'), /compressed with gzip; unpack it first/],
  ['zstd', Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0]), /compressed with zstd/],
  ['Parquet', 'PAR1\u0015', /is Parquet; write it as JSON Lines/],
  [
    'a JSON array over several lines',
    '[\n {"prompt": "p"}\n]',
    /one JSON array, and JSON Lines has one object on each line/,
  ],
  ['a JSON array in one line', '\ufeff[{"prompt": "p"}]', /one JSON array/],
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
lines.run()
