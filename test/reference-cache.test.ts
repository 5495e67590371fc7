/** The cache of reference log-probabilities: what it returns is what was put there for the same tokens, or nothing. */
import { existsSync, mkdirSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { FLUSH_MS, hashTokens, ReferenceCache, type ReferenceKey } from '../lib/data/reference-cache.js'
import { seededRandom } from './fixtures/random.js'
import { sleep } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const KEY: ReferenceKey = {
  weights: 'w',
  text: 't',
  data: 'd',
  dtype: 'f32',
  device: 'cpu',
  kernels: 'k',
  version: '1',
  numerics: 1,
  border: 'whole',
  onLong: 'error',
  contextLength: 9,
}
// One temporary folder for all: each registers a listener on the process.
const root = temporaryFolder()
let folders = 0
const newFolder = () => join(root, String(folders++))

const RECORDS = 30_000 // several blocks more than are kept in memory
const hashOf = (i: number) => hashTokens(Int32Array.of(i, i + 1), hashTokens(Int32Array.of(7)))
const logprobOf = (i: number) => -1 / (i + 1)

const warnings: string[] = []
const warn = (message: string) => warnings.push(message)
async function openCache(folder: string, key = KEY): Promise<ReferenceCache> {
  const cache = await ReferenceCache.open(folder, key, warn)
  if (cache === undefined) throw new Error(`no cache: ${warnings.at(-1)}`)
  return cache
}
async function filled(records = 100): Promise<string> {
  const folder = newFolder()
  const cache = await openCache(folder)
  for (let i = 0; i < records; i++) await cache.put(i, hashOf(i), logprobOf(i))
  await cache.close()
  return folder
}
const fileOf = (folder: string) => {
  const [name] = readdirSync(join(folder, 'reference')).filter((file) => file.endsWith('.logp')) as [string]
  return join(folder, 'reference', name)
}

const cache = suite('reference cache')
cache.before.each(() => {
  warnings.length = 0
})

cache('gives back every value to the bit, over more blocks than it holds', async () => {
  const reopened = await openCache(await filled(RECORDS))
  for (let i = 0; i < RECORDS; i++) assert.is(await reopened.get(i, hashOf(i)), logprobOf(i))
  assert.is(reopened.hits, RECORDS)
  await reopened.close()
  assert.equal(warnings, [])
})

cache('what was computed a while ago is on disk, whatever becomes of the process', async () => {
  const folder = newFolder()
  const running = await openCache(folder)
  await running.put(0, hashOf(0), logprobOf(0))
  await running.put(5000, hashOf(1), logprobOf(1))
  await sleep(FLUSH_MS + 100)
  await running.put(1, hashOf(2), logprobOf(2))
  const other = await openCache(folder) // the first one is neither closed nor asked
  assert.is(await other.get(0, hashOf(0)), logprobOf(0))
  assert.is(await other.get(5000, hashOf(1)), logprobOf(1))
  await other.close()
  await running.close()
})

cache('is sparse: what was never put is missing', async () => {
  const folder = newFolder()
  const sparse = await openCache(folder)
  await sparse.put(1_000_000, hashOf(1), -2)
  assert.is(await sparse.get(999_999, hashOf(1)), undefined)
  await sparse.close()
  const reopened = await openCache(folder)
  assert.is(await reopened.get(1_000_000, hashOf(1)), -2)
  assert.is(await reopened.get(0, hashOf(1)), undefined)
  assert.is(await reopened.get(5_000_000, hashOf(1)), undefined)
  await reopened.close()
})

cache('other tokens at the same place are a miss', async () => {
  const reopened = await openCache(await filled())
  assert.is(await reopened.get(3, hashOf(4)), undefined)
  assert.is(await reopened.get(4, hashOf(3)), undefined)
  assert.is(reopened.misses, 2)
  await reopened.close()
})

cache('the border of prompt and response counts, as does every token', () => {
  const split = (...parts: number[][]) => {
    const hash = parts.reduce<ReturnType<typeof hashTokens> | undefined>(
      (state, ids) => hashTokens(Int32Array.from(ids), state),
      undefined,
    )
    return `${hash!.low} ${hash!.high}`
  }
  const hashes = [
    split([1, 2], [3]),
    split([1], [2, 3]),
    split([1, 2, 3], []),
    split([], [1, 2, 3]),
    split([1, 2], [4]),
    split([2, 1], [3]),
  ]
  assert.is(new Set(hashes).size, hashes.length)
  const random = seededRandom(5)
  const many = new Set(
    Array.from({ length: 100_000 }, () => split([random.below(3), random.below(50_000), random.below(50_000)])),
  )
  assert.ok(many.size > 99_990) // few of the inputs themselves coincide
})

cache('a bit changed anywhere in a record makes it a miss, never another value', async () => {
  const folder = await filled(16)
  const file = fileOf(folder)
  const good = readFileSync(file)
  for (let bit = 0; bit < 128; bit++) {
    const bytes = Buffer.from(good)
    const at = 4096 + 5 * 16 + (bit >> 3)
    bytes[at] = bytes[at]! ^ (1 << (bit & 7))
    writeFileSync(file, bytes)
    const damaged = await openCache(folder)
    assert.is(await damaged.get(5, hashOf(5)), undefined)
    assert.is(await damaged.get(6, hashOf(6)), logprobOf(6))
    await damaged.close()
  }
})

cache('a file cut in the middle of a record loses that record and those after', async () => {
  const folder = await filled(16)
  truncateSync(fileOf(folder), 4096 + 5 * 16 + 9)
  const cut = await openCache(folder)
  assert.is(await cut.get(4, hashOf(4)), logprobOf(4))
  assert.is(await cut.get(5, hashOf(5)), undefined)
  await cut.close()
})

for (const [name, damage] of [
  [
    'a damaged header',
    (file: string) => writeFileSync(file, Buffer.concat([Buffer.from('XX'), readFileSync(file).subarray(2)])),
  ],
  ['a file shorter than the header', (file: string) => truncateSync(file, 100)],
] as const) {
  cache(`${name}: started anew, with a warning`, async () => {
    const folder = await filled()
    damage(fileOf(folder))
    const anew = await openCache(folder)
    assert.match(warnings[0], /not a valid cache .* makes a new one/)
    assert.is(await anew.get(3, hashOf(3)), undefined)
    await anew.put(3, hashOf(3), -9)
    await anew.close()
    const again = await openCache(folder)
    assert.is(await again.get(3, hashOf(3)), -9)
    await again.close()
  })
}

cache('another key is another file', async () => {
  const folder = await filled()
  for (const key of Object.keys(KEY) as (keyof ReferenceKey)[]) {
    const other = await openCache(folder, { ...KEY, [key]: typeof KEY[key] === 'number' ? 77 : 'other' })
    assert.is(await other.get(3, hashOf(3)), undefined)
    await other.close()
  }
})

cache('a second user of a file reads it and does not write', async () => {
  const folder = await filled()
  const first = await openCache(folder)
  const second = await openCache(folder)
  assert.ok(first.writable)
  assert.not(second.writable)
  assert.is(await second.get(3, hashOf(3)), logprobOf(3))
  await second.put(500, hashOf(500), -5)
  await second.close()
  assert.ok(existsSync(`${first.path}.lock`))
  await first.close()
  assert.not(existsSync(`${first.path}.lock`))
})

for (const [name, text] of [
  ['this version', `${2 ** 22 + 1}\n`],
  ['a version that wrote who it was', JSON.stringify({ pid: 1, started: '1', host: 'elsewhere' })],
  ['a process killed before it wrote anything', ''],
] as const) {
  cache(`a lock's file left behind by ${name} locks nothing`, async () => {
    const folder = await filled()
    writeFileSync(`${fileOf(folder)}.lock`, text)
    const after = await openCache(folder)
    assert.ok(after.writable)
    await after.close()
    assert.not(existsSync(`${after.path}.lock`))
  })
}

cache('a directory that cannot be used is a warning and no cache', async () => {
  const folder = newFolder()
  mkdirSync(folder)
  const file = join(folder, 'file')
  writeFileSync(file, '')
  assert.is(await ReferenceCache.open(file, KEY, warn), undefined)
  assert.match(warnings[0], /reference log-probabilities are not cached/)
})

cache('a value that is no number is not kept', async () => {
  const folder = newFolder()
  const one = await openCache(folder)
  await one.put(0, hashOf(0), Number.NaN)
  await one.put(1, hashOf(1), Number.NEGATIVE_INFINITY)
  assert.is(await one.get(0, hashOf(0)), undefined)
  assert.is(await one.get(1, hashOf(1)), undefined)
  await one.close()
})
cache.run()
