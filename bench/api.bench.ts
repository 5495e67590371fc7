/**
 * The API's own costs around the engine: rendering, tokenizing, batching, and a whole small call of score(). Uses benny; set
 * IMPLEX_BENCH_SECONDS for the time per case (default 1) and IMPLEX_BENCH_JSON for a file to compare with bench:compare.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import benny from 'benny'
import { ensureCheckpoint, type ModelSize } from './suites/checkpoint.js'
import { type BenchCase, beginResult, writeResult } from './suites/result.js'
import { allTexts, madeUpPairs } from './suites/texts.js'
import { encodePairs } from './suites/workload.js'
import { BatchBuilder, nativeBatch } from '../lib/data/pack.js'
import type { EncodedRow } from '../lib/data/encode.js'
import { kernels } from '../lib/native/kernels.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { RowEncoder } from '../lib/text/text-encoder.js'

const SIZE: ModelSize = {
  name: 'tiny',
  hidden: 64,
  layers: 2,
  heads: 4,
  kvHeads: 2,
  intermediate: 128,
  vocabulary: 8192,
}
const PAIRS = 16

const folder = mkdtempSync(join(tmpdir(), 'implex-bench-'))
process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
const path = join(folder, 'model')
const pairs = madeUpPairs(PAIRS)
await ensureCheckpoint(path, SIZE, allTexts(pairs), 1)
const encoder = await RowEncoder.load({ path })
const encoded = await encodePairs(path, pairs)
const model = await RewardModel.open(path, { kind: 'implicit', device: 'cpu', cache: false })
const [pair] = pairs as [(typeof pairs)[number]]
let turn = 0
/** Uses another pair each time, because an encoder remembers the last prompt. */
const next = () => pairs[turn++ % PAIRS]!
const hidden = new Float32Array(8 * 64).fill(0.1)
const weight = new Float32Array(256 * 64).fill(0.1)
const targets = new Int32Array(8)

function batches(rows: readonly EncodedRow[]): number {
  const builder = new BatchBuilder<{ row: EncodedRow }>(4096)
  for (const row of rows) builder.add({ row })
  builder.flush()
  let tokens = 0
  for (let items = builder.take(); items !== undefined; items = builder.take()) {
    tokens += nativeBatch(items, { readout: 'logprob' }).tokens.length
  }
  return tokens
}

const finish = await beginResult('api')
const maxTime = Number(process.env.IMPLEX_BENCH_SECONDS ?? 1)
const summary = await benny.suite(
  'API',
  benny.configure({ cases: { maxTime, minSamples: 5 } }),
  benny.add('render a prompt', () => {
    encoder.renderPrompt(next().prompt)
  }),
  benny.add('tokenize a pair', () => {
    const { prompt, chosen, rejected } = next()
    encoder.encodeConversation(prompt, chosen, 'whole')
    encoder.encodeConversation(prompt, rejected, 'whole')
  }),
  benny.add(`batch ${PAIRS} pairs`, () => {
    batches(encoded)
  }),
  benny.add('kernels.linearLogprob 8x256x64', async () => {
    await kernels.linearLogprob({ hidden, weight, targets })
  }),
  benny.add('score() of 1 pair', async () => {
    await model.score([pair])
  }),
  benny.add(`score() of ${PAIRS} pairs`, async () => {
    await model.score(pairs)
  }),
  benny.cycle(),
)
model.dispose()

const file = process.env.IMPLEX_BENCH_JSON
if (file !== undefined) {
  const cases = summary.results.map(
    ({ name, details }): BenchCase => ({ name, samples: details.sampleResults, work: { ops: 1 } }),
  )
  await writeResult(file, finish(cases))
}
