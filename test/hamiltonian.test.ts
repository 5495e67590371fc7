/** The Hamiltonian cycle task: its data, its verifier, its tokens, and the rate at which a model solves it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { withAddedTokens } from '../lab/experiments/added-tokens.js'
import { hamiltonianData } from '../lab/experiments/hamiltonian/data.js'
import { generationRate } from '../lab/experiments/hamiltonian/generation-rate.js'
import { identity, SEPARATORS, verifyCycle } from '../lab/experiments/hamiltonian/graph.js'
import { openCheckpoint } from '../lib/checkpoint/checkpoint.js'
import { LanguageModel } from '../lib/models/language-model.js'
import { RewardModel } from '../lib/models/reward-model.js'
import { RowEncoder } from '../lib/text/text-encoder.js'
import { TINY_FAMILIES, writeTinyCheckpoint } from './fixtures/tiny-checkpoint.js'
import { rejection } from './support/engine.js'
import { temporaryFolder } from './support/tmp.js'

const folder = temporaryFolder()
const task = suite('Hamiltonian cycles')

task('every chosen order is a cycle of its graph, no rejected one is, and no graph is there twice', () => {
  const { train, test } = hamiltonianData()
  assert.equal([train.length, test.length], [1000, 200])
  for (const { graph, row } of [...train, ...test]) {
    assert.ok(verifyCycle(graph, row.chosen))
    assert.not(verifyCycle(graph, row.rejected))
    assert.match(row.prompt, /^Vertices: (<sep>\d){10}\nEdges: (<sep>\d<edge_sep>\d){10,45}$/)
    for (const order of [row.chosen, row.rejected]) assert.is(new Set(order.split('<sep>').slice(1)).size, 10)
    const edges = row.prompt.split('Edges: ')[1]!.split('<sep>').slice(1)
    assert.equal(
      edges.map((edge) => edge.split('<edge_sep>').map(Number)),
      graph.edges,
    )
  }
  assert.is(new Set([...train, ...test].map(({ graph }) => identity(graph))).size, 1200)
  // 10 edges of the cycle and a fifth of the other 35.
  const mean = train.reduce((sum, { graph }) => sum + graph.edges.length, 0) / train.length
  assert.ok(Math.abs(mean - 17) < 0.3, String(mean))
})

task('the same from the same seed; sizes, separators and impossible wishes', () => {
  assert.equal(hamiltonianData({ train: 20, test: 5 }), hamiltonianData({ train: 20, test: 5 }))
  assert.equal(hamiltonianData({ train: 20, test: 5 }).train, hamiltonianData({ train: 20, test: 0 }).train)
  assert.not.equal(hamiltonianData({ train: 20, seed: 1 }).train, hamiltonianData({ train: 20 }).train)
  const [pair] = hamiltonianData({ vertices: 5, train: 1, separators: { vertex: ' ', edge: '-' } }).train
  assert.match(pair!.row.prompt, /^Vertices: {2}0 1 2 3 4\nEdges: ( \d-\d){5,10}$/)
  for (const options of [{ vertices: 4, p: 0 }, { p: 1 }, { vertices: 3 }, { p: -1 }, { train: -1 }]) {
    assert.throws(
      () => hamiltonianData(options),
      (error: unknown) => error instanceof RangeError,
    )
  }
})

task('the verifier, case by case', () => {
  const graph = {
    vertices: 4,
    edges: [
      [0, 1],
      [1, 2],
      [2, 3],
      [0, 3],
    ] as [number, number][],
  }
  for (const text of ['<sep>0<sep>1<sep>2<sep>3', '3 0 1 2', '2, 1, 0, 3', ' 1->2->3->0\n'])
    assert.ok(verifyCycle(graph, text))
  const wrong = ['', 'none', '0 1 2', '0 1 2 3 0', '0 1 2 2', '0 2 1 3', '0123', '0 1 2 4', '1 0 2 3']
  for (const text of wrong) assert.not(verifyCycle(graph, text), text)
  const path = { vertices: 4, edges: graph.edges.slice(0, 3) }
  assert.not(verifyCycle(path, '0 1 2 3'), 'the way back is an edge too')
})

for (const family of TINY_FAMILIES) {
  task(`${family}: tokens are added to a copy, once, with rows near the mean`, async () => {
    const model = join(folder, family)
    const copy = join(folder, `${family}-copy`)
    await writeTinyCheckpoint(model, { family, seed: 3 })
    const before = await openCheckpoint(model)
    const plain = await RowEncoder.load({ path: model, template: 'none' })
    const tokens = Array.from({ length: before.spec.vocabSize - plain.vocabularySize + 2 }, (_, i) => `<t${i}>`)
    await withAddedTokens(model, [...tokens, tokens[0]!], copy)
    const after = await openCheckpoint(copy)
    const encoder = await RowEncoder.load({ path: copy, template: 'none' })
    assert.is(after.spec.vocabSize, before.spec.vocabSize + 2)
    assert.is(encoder.vocabularySize, after.spec.vocabSize)
    const at = plain.vocabularySize
    assert.equal([encoder.tokenId(tokens[0]!), encoder.tokenId(tokens.at(-1)!)], [at, after.spec.vocabSize - 1])
    assert.equal(encoder.tokenTexts([at]), [tokens[0]])
    const read = (checkpoint: typeof after, role: string) => {
      const weight = checkpoint.spec.weights.find((one) => one.role === role)!
      const file = readFileSync(weight.file)
      return new Float32Array(
        file.buffer.slice(file.byteOffset + weight.offset, file.byteOffset + weight.offset + weight.bytes),
      )
    }
    for (const role of ['embedding', 'unembedding']) {
      const [old, grown] = [read(before, role), read(after, role)]
      assert.ok(Buffer.from(grown.buffer, 0, old.byteLength).equals(Buffer.from(old.buffer)))
      const [first, second] = [grown.subarray(old.length, old.length + 32), grown.subarray(old.length + 32)]
      assert.not.equal(first, second)
      for (const row of [first, second]) {
        for (let c = 0; c < 32; c++) {
          let mean = 0
          for (let r = 0; r < before.spec.vocabSize; r++) mean += old[r * 32 + c]! / before.spec.vocabSize
          assert.ok(Math.abs(row[c]! - mean) < 1e-4, `${row[c]} is far from ${mean}`)
        }
      }
    }
    assert.is((await rejection(withAddedTokens(model, ['<x>'], copy))).code, 'ERR_IO')
    const other = join(folder, `${family}-other`)
    await withAddedTokens(model, tokens, other, { seed: 1 })
    assert.not.equal(read(await openCheckpoint(other), 'embedding'), read(after, 'embedding'))
    using opened = await RewardModel.open(copy, { kind: 'implicit', template: 'none', device: 'cpu' })
    const { rows } = await opened.score([{ prompt: 'the', responses: [tokens[0]! + tokens.at(-1)!] }])
    assert.ok(Number.isFinite(rows[0]!.rewards[0]))
  })
}

task('the rate counts what the verifier accepts', async () => {
  const { test } = hamiltonianData({ train: 0, test: 3 })
  const texts = [test[0]!.row.chosen, test[1]!.row.rejected, `${test[2]!.row.chosen} 0`]
  const asked: unknown[] = []
  const model: Pick<LanguageModel, 'stream'> = {
    async *stream(prompts, options) {
      asked.push(prompts, options)
      for (const text of texts) yield [{ text, ids: new Int32Array(0), logprobs: new Float32Array(0), finish: 'stop' }]
    },
  }
  const seen: boolean[] = []
  const rate = await generationRate(model, test, { seed: 4, onExample: ({ correct }) => seen.push(correct) })
  assert.equal([rate.correct, rate.total, seen], [1, 3, [true, false, false]])
  assert.equal(asked, [
    test.map(({ row }) => row.prompt),
    { maxNewTokens: 300, seed: 4, batchSize: 64, temperature: 1, topP: 1, topK: 0, samples: 1, signal: undefined },
  ])
  const tiny = join(folder, 'separators')
  await writeTinyCheckpoint(join(folder, 'plain'), { maxPositions: 512 })
  await withAddedTokens(join(folder, 'plain'), Object.values(SEPARATORS), tiny)
  using real = await LanguageModel.open(tiny, { device: 'cpu', template: 'none' })
  const measured = await generationRate(real, test, { maxNewTokens: 20 })
  assert.equal([measured.correct, measured.total], [0, 3])
})

task.run()
