/** Writing checkpoints, the conversions of stored weights, and fingerprints. */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { openCheckpoint, readHead } from '../lib/checkpoint/checkpoint.js'
import { decode, encode } from '../lib/checkpoint/dtype.js'
import { modelFingerprint, weightsFingerprint } from '../lib/checkpoint/fingerprint.js'
import { readHeader } from '../lib/checkpoint/safetensors.js'
import { writeCheckpoint, writeSafetensors } from '../lib/checkpoint/write.js'
import { ImplexError } from '../lib/core/errors.js'
import { setConfig, weightsFile } from './fixtures/damage.js'
import { tinyCheckpoint, writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { temporaryFolder } from './support/tmp.js'

const root = temporaryFolder()
let made = 0
const place = () => join(root, String(made++))

async function failure(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => assert.unreachable('should have failed'),
    (error: unknown) => error,
  )
}

const bits = (dtype: 'f16' | 'bf16', value: number) => encode(Float32Array.of(value), 0, 1, dtype).readUInt16LE()

test('every half and bfloat16 survives the way to float32 and back', () => {
  const all = Buffer.alloc(2 * 65536)
  for (let i = 0; i < 65536; i++) all.writeUInt16LE(i, 2 * i)
  for (const dtype of ['f16', 'bf16'] as const) {
    const values = decode(all, dtype)
    const back = encode(values, 0, values.length, dtype)
    for (let i = 0; i < 65536; i++) {
      if (Number.isNaN(values[i])) assert.ok(Number.isNaN(decode(back.subarray(2 * i, 2 * i + 2), dtype)[0]))
      else if (back.readUInt16LE(2 * i) !== i) assert.unreachable(`${dtype} 0x${i.toString(16)}`)
    }
  }
})

test('rounding is to nearest, ties to even, with overflow to infinity', () => {
  assert.is(bits('bf16', 1 + 2 ** -8), 0x3f80)
  assert.is(bits('bf16', 1 + 3 * 2 ** -8), 0x3f82)
  assert.is(bits('bf16', 1 + 2 ** -8 + 2 ** -20), 0x3f81)
  assert.is(bits('bf16', 3.4e38), 0x7f80)
  assert.is(bits('bf16', -0), 0x8000)
  assert.is(bits('f16', 1 + 2 ** -11), 0x3c00)
  assert.is(bits('f16', 1 + 3 * 2 ** -11), 0x3c02)
  assert.is(bits('f16', 65519), 0x7bff)
  assert.is(bits('f16', -65520), 0xfc00)
  assert.is(bits('f16', 2 ** -25), 0)
  assert.is(bits('f16', 3 * 2 ** -25), 2)
  assert.is(bits('f16', 2 ** -14 - 2 ** -25), 0x0400)
})

test('a file is written as it is read', async () => {
  const file = `${place()}.safetensors`
  const data = Float32Array.from({ length: 6 }, (_, i) => i / 4)
  await writeSafetensors(file, [
    { name: 'b', shape: [2, 3], data, dtype: 'bf16' },
    { name: '__proto__', shape: [6], data },
    { name: 'empty', shape: [0, 4], data: new Float32Array() },
  ])
  const entries = [...(await readHeader(file)).values()]
  assert.equal(entries.map(({ name, dtype, shape, bytes }) => [name, dtype, shape, bytes]).sort(), [
    ['__proto__', 'F32', [6], 24],
    ['b', 'BF16', [2, 3], 12],
    ['empty', 'F32', [0, 4], 0],
  ])
  for (const { offset, dtype } of entries) assert.is(offset % (dtype === 'F32' ? 4 : 2), 0)
  await writeSafetensors(file, [{ name: 'score.weight', shape: [1, 6], data }])
  assert.equal(await readHead(file, 6), data)
  const wrong = await failure(writeSafetensors(file, [{ name: 'x', shape: [5], data }]))
  assert.instance(wrong, RangeError)
  const twice = { name: 'x', shape: [6], data }
  assert.instance(await failure(writeSafetensors(file, [twice, twice])), RangeError)
  assert.equal(await readHead(file, 6), data, 'a failed write leaves the old file')
})

test('the same options give the same bytes', async () => {
  const [a, b] = [place(), place()]
  await writeTinyCheckpoint(a, { seed: 5, dtype: 'f16' })
  await writeTinyCheckpoint(b, { seed: 5, dtype: 'f16' })
  for (const name of readdirSync(a)) assert.equal(readFileSync(join(a, name)), readFileSync(join(b, name)), name)
  assert.equal(readdirSync(a).sort(), [
    'chat_template.jinja',
    'config.json',
    'model.safetensors',
    'tokenizer.json',
    'tokenizer_config.json',
  ])
})

test('a folder is replaced only when asked, and wholly', async () => {
  const parent = place()
  mkdirSync(parent)
  const folder = join(parent, 'model')
  await writeCheckpoint(folder, tinyCheckpoint({ shardBytes: 40_000 }))
  const again = await failure(writeCheckpoint(folder, tinyCheckpoint()))
  assert.is((again as ImplexError).code, 'ERR_IO')
  assert.ok((again as ImplexError).message.includes(folder))
  await writeCheckpoint(folder, tinyCheckpoint({ family: 'qwen2' }), { replace: true })
  assert.is((await openCheckpoint(folder)).family, 'qwen2')
  assert.not.ok(readdirSync(folder).some((name) => name.includes('00001')))

  const bad = { ...tinyCheckpoint(), files: { '../outside': '' } }
  assert.instance(await failure(writeCheckpoint(folder, bad, { replace: true })), RangeError)
  assert.is((await openCheckpoint(folder)).family, 'qwen2')
  assert.equal(readdirSync(parent), ['model'], 'no temporary folders are left')
})

test('writing under a file is an error that names the target', async () => {
  const file = place()
  writeFileSync(file, '')
  for (const write of [writeCheckpoint(join(file, 'model'), tinyCheckpoint()), writeSafetensors(join(file, 'x'), [])]) {
    const error = await failure(write)
    assert.instance(error, ImplexError)
    assert.is((error as ImplexError).code, 'ERR_IO')
    assert.ok((error as ImplexError).message.includes(file))
  }
})

test('fingerprints follow the weights, and the config where asked', async () => {
  const folder = place()
  await writeTinyCheckpoint(folder, { tokenizer: false })
  const checkpoint = await openCheckpoint(folder)
  const weights = await weightsFingerprint(checkpoint)
  assert.is(
    weights,
    createHash('sha256')
      .update(readFileSync(weightsFile(folder)))
      .digest('hex'),
  )
  const model = await modelFingerprint(checkpoint)
  setConfig(folder, { rope_parameters: { rope_theta: 20_000 } })
  const other = await openCheckpoint(folder)
  assert.is(await weightsFingerprint(other), weights)
  assert.is.not(await modelFingerprint(other), model)
  const sharded = place()
  await writeTinyCheckpoint(sharded, { tokenizer: false, shardBytes: 40_000 })
  assert.match(await weightsFingerprint(await openCheckpoint(sharded)), /^[0-9a-f]{64}$/)
})

test('fingerprints are remembered until the file changes', async () => {
  const [folder, cache] = [place(), place()]
  await writeTinyCheckpoint(folder, { tokenizer: false })
  const checkpoint = await openCheckpoint(folder)
  const first = await weightsFingerprint(checkpoint, cache)
  const [memo] = readdirSync(cache).map((name) => join(cache, name)) as [string]
  assert.is(readdirSync(cache).length, 1)

  const marked = { ...JSON.parse(readFileSync(memo, 'utf8')), sha256: 'a'.repeat(64) }
  writeFileSync(memo, JSON.stringify(marked))
  assert.is(await weightsFingerprint(checkpoint, cache), 'a'.repeat(64), 'the memo is used')
  writeFileSync(memo, JSON.stringify({ ...marked, sha256: 'short' }))
  assert.is(await weightsFingerprint(checkpoint, cache), first, 'a damaged memo is not')
  writeFileSync(memo, '{')
  assert.is(await weightsFingerprint(checkpoint, cache), first)
  writeFileSync(memo, JSON.stringify(marked))

  const { atime, mtime } = statSync(weightsFile(folder))
  const bytes = readFileSync(weightsFile(folder))
  bytes[bytes.length - 1] = (bytes.at(-1) as number) ^ 1
  writeFileSync(weightsFile(folder), bytes)
  utimesSync(weightsFile(folder), atime, mtime)
  const second = await weightsFingerprint(checkpoint, cache)
  assert.is.not(second, first)
  assert.is.not(second, 'a'.repeat(64))
  assert.is(await weightsFingerprint(checkpoint, weightsFile(folder)), second, 'a useless cache folder is no error')

  const aborted = await failure(weightsFingerprint(checkpoint, undefined, AbortSignal.abort()))
  assert.is((aborted as ImplexError).code, 'ERR_ABORTED')
  assert.ok(existsSync(memo))
})

test.run()
