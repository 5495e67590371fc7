/** Files that appear whole or not at all, files that need not be there, and whether two runs are the same. */
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { appear, isTemporary, writeFileAtomic, writeFlushed } from '../lib/core/atomic.js'
import { readIfPresent, readJsonFile, readJsonIfPresent, readText } from '../lib/core/files.js'
import { checkSameRun, differences } from '../lib/core/same-run.js'
import { failure } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const whole = suite('whole or not at all')

whole('a file replaces the one before it, and nothing else stays', async () => {
  const folder = temporaryFolder()
  const path = join(folder, 'a.txt')
  await writeFileAtomic(path, 'first')
  await writeFileAtomic(path, Buffer.from('second'))
  assert.is(readFileSync(path, 'utf8'), 'second')
  assert.equal(readdirSync(folder), ['a.txt'])
})

whole('what fails half-way leaves what was there, and no rest', async () => {
  const folder = temporaryFolder()
  const path = join(folder, 'a.txt')
  writeFileSync(path, 'before')
  const stop = new RangeError('half-way')
  const fill = async (temporary: string) => {
    assert.ok(isTemporary(temporary.slice(folder.length + 1)))
    await mkdir(temporary)
    await writeFlushed(join(temporary, 'part'), (file) => file.writeFile('part'))
    throw stop
  }
  assert.is(await appear(path, fill).catch((error: unknown) => error), stop)
  const place = () => Promise.reject(Object.assign(new Error('no room'), { code: 'ENOSPC' }))
  const full = await failure(() => appear(path, (temporary) => mkdir(temporary), place))
  assert.is(full.code, 'ERR_DISK_FULL')
  assert.match(full.message, 'a.txt: cannot write: no room')
  assert.equal(readdirSync(folder), ['a.txt'])
  assert.is(readFileSync(path, 'utf8'), 'before')
})

whole('a folder that is not there is named', async () => {
  const { code, message } = await failure(() => writeFileAtomic(join(temporaryFolder(), 'no', 'a.txt'), ''))
  assert.is(code, 'ERR_IO')
  assert.match(message, join('no', 'a.txt: cannot write'))
})
whole.run()

const reading = suite('reading')

reading('a file that need not be there is undefined; one that cannot be read is an error', async () => {
  const folder = temporaryFolder()
  writeFileSync(join(folder, 'a'), 'text')
  for (const read of [readIfPresent, (file: string) => readJsonIfPresent(file, 'ERR_IO')]) {
    assert.is(await read(join(folder, 'absent')), undefined)
    assert.is(await read(join(folder, 'a', 'below')), undefined)
    mkdirSync(join(folder, 'b'), { recursive: true })
    assert.is((await failure(() => read(join(folder, 'b')))).code, 'ERR_IO')
  }
  assert.is(await readIfPresent(join(folder, 'a')), 'text')
  assert.is((await failure(() => readText(join(folder, 'absent')))).code, 'ERR_IO')
})

reading('what is wrong in a JSON file has the code, the file and the advice', async () => {
  const file = join(temporaryFolder(), 'a.json')
  writeFileSync(file, '{"a": 1}')
  assert.equal(await readJsonFile(file, 'ERR_RESUME_MISMATCH'), { a: 1 })
  assert.match((await failure(() => readJsonFile(file, 'ERR_IO', { maxBytes: 7 }))).message, 'too large')
  for (const [text, problem] of [
    ['{"a": ', /a\.json: the file is not valid JSON: .*; start anew$/],
    ['', /not valid JSON/],
    ['[1]', /a\.json: the file must be a JSON object; start anew$/],
    ['null', /must be a JSON object/],
    [Buffer.of(0x7b, 0xff, 0x7d), /not UTF-8; start anew$/],
  ] as const) {
    writeFileSync(file, text)
    const error = await failure(() => readJsonFile(file, 'ERR_RESUME_MISMATCH', { advice: 'start anew' }))
    assert.is(error.code, 'ERR_RESUME_MISMATCH')
    assert.match(error.message, problem)
  }
})
reading.run()

const same = suite('same run')

same('every difference is named; what is null, undefined or not there is the same', async () => {
  assert.equal(differences({ a: 1, b: [1, { c: 2 }], n: null }, { a: 1, b: [1, { c: 2 }], u: undefined }), [])
  const hash = 'f'.repeat(64)
  const found = differences({ a: 1, data: hash, x: 'is' }, { a: 2, data: '0'.repeat(64), y: true })
  assert.equal(found, [
    'a was 1, now 2',
    'data was content ffffffffffff, now content 000000000000',
    'x was "is", now absent',
    'y was absent, now true',
  ])
  checkSameRun('out', { a: 1 }, { a: 1 }, 'go')
  const error = await failure(async () => checkSameRun('out', { a: 1 }, { a: 2 }, 'go elsewhere'))
  assert.is(error.code, 'ERR_RESUME_MISMATCH')
  assert.match(error.message, /^out belongs to a different run, .*: a was 1, now 2\. .* or go elsewhere$/)
})
same.run()
