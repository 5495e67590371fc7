/** Rows to ragged batches: budgets are kept, prompts are shared, nothing is lost or reordered. */
import { suite } from 'uvu'
import * as assert from 'uvu/assert'
import { BatchBuilder, type BatchItem, nativeBatch, pack, perItem } from '../lib/data/pack.js'
import { trainBatch } from '../lib/train/batches.js'
import type { EncodedRow } from '../lib/data/encode.js'
import { seededRandom } from './fixtures/random.js'

interface Slot {
  row: EncodedRow
}

const slot = (index: number, prompt: number, ...responses: number[]): Slot => ({
  row: {
    index,
    shape: 'group',
    prompt: new Int32Array(prompt).fill(index),
    responses: responses.map((length, k) => new Int32Array(length).fill(100 + k)),
  },
})

function batchesOf(budget: number, slots: Slot[]): BatchItem<Slot>[][] {
  const builder = new BatchBuilder<Slot>(budget)
  for (const one of slots) builder.add(one)
  builder.flush()
  const batches: BatchItem<Slot>[][] = []
  for (let items = builder.take(); items !== undefined; items = builder.take()) batches.push(items)
  assert.ok(builder.empty)
  return batches
}

const shape = (batches: BatchItem<Slot>[][]) =>
  batches.map((items) => items.map(({ slot: { row }, k }) => `${row.index}.${k}`).join(' '))

const batching = suite('batches')

batching('groups are kept together where they fit', () => {
  assert.equal(shape(batchesOf(20, [slot(0, 4, 3, 3), slot(1, 4, 3, 3), slot(2, 1, 1)])), ['0.0 0.1 1.0 1.1', '2.0'])
})

batching('a group that does not fit into the rest of a batch begins the next one', () => {
  assert.equal(shape(batchesOf(15, [slot(0, 4, 3, 3), slot(1, 4, 3, 3)])), ['0.0 0.1', '1.0 1.1'])
})

batching('a group beyond the budget is split and its prompt repeated', () => {
  const batches = batchesOf(10, [slot(0, 4, 3, 3, 3, 3)])
  assert.equal(shape(batches), ['0.0 0.1', '0.2 0.3'])
  for (const items of batches) assert.is(nativeBatch(items, { readout: 'logprob' }).tokens.length, 10)
})

batching('a response beyond the budget gets a batch of its own', () => {
  assert.equal(shape(batchesOf(10, [slot(0, 2, 2), slot(1, 4, 30, 2), slot(2, 2, 2)])), ['0.0', '1.0', '1.1 2.0'])
})

batching('any rows, any budget: in order, complete, within the budget', () => {
  const random = seededRandom(3)
  for (let trial = 0; trial < 200; trial++) {
    const slots = Array.from({ length: 1 + random.below(20) }, (_, i) =>
      slot(i, 1 + random.below(12), ...Array.from({ length: 1 + random.below(5) }, () => 1 + random.below(9))),
    )
    const budget = 1 + random.below(60)
    const batches = batchesOf(budget, slots)
    const expected = slots.flatMap(({ row }) => row.responses.map((_, k) => `${row.index}.${k}`))
    assert.equal(shape(batches).join(' ').split(' '), expected)
    for (const items of batches) {
      const { tokens } = nativeBatch(items, { readout: 'logprob' })
      assert.ok(tokens.length <= budget || items.length === 1, `${tokens.length} tokens in a batch of ${budget}`)
    }
  }
})

batching('the engine gets each prompt once, as the parent of its responses', () => {
  const [items] = batchesOf(100, [slot(7, 3, 2, 1), slot(8, 2, 2)])
  const batch = nativeBatch(items!, { readout: 'next_token', targetToken: 5 })
  assert.equal([...batch.tokens], [7, 7, 7, 100, 100, 101, 8, 8, 100, 100])
  assert.equal([...batch.segments], [0, 3, -1, 3, 2, 0, 5, 1, 0, 6, 2, -1, 8, 2, 3])
  assert.equal([...batch.scored], [1, 2, 4])
  assert.is(batch.readout, 'next_token')
  assert.is(batch.targetToken, 5)
})

batching('responses without a common prompt have no parent', () => {
  const [items] = batchesOf(100, [slot(0, 0, 2, 3)])
  assert.equal([...nativeBatch(items!, { readout: 'next_token' }).segments], [0, 2, -1, 2, 3, -1])
})
batching('sequences are packed in order, a prompt once and none where there is none', () => {
  const plain = pack([
    { prompt: [7, 8], responses: [[1], [2, 3]] },
    { prompt: [], responses: [[4, 5], [6]] },
  ])
  assert.equal([...plain.tokens], [7, 8, 1, 2, 3, 4, 5, 6])
  assert.equal([...plain.segments], [0, 2, -1, 2, 1, 0, 3, 2, 0, 5, 2, -1, 7, 1, -1])
  assert.equal([...plain.scored], [1, 2, 3, 4])
  assert.equal(pack([]).tokens.length, 0)
})

batching('a training packs what a scoring packs: the same pairs are the same sequences', () => {
  const rows = [slot(0, 4, 2, 3), slot(1, 0, 2, 3), slot(2, 3, 1, 1)]
  const pairs = rows.map(({ row }) => ({ ...row, shape: 'pair' as const, ordinal: 0 }))
  const [items] = batchesOf(100, rows)
  const { tokens, segments, scored } = nativeBatch(items!, { readout: 'logprob' })
  const batch = trainBatch('explicit', pairs, { scale: 1, gradients: false })
  assert.equal([batch.tokens, batch.segments, batch.scored], [tokens, segments, scored])
  const chosen = trainBatch('sft', pairs, { scale: 1, gradients: false })
  assert.equal([...chosen.segments], [0, 4, -1, 4, 2, 0, 6, 2, -1, 8, 3, -1, 11, 1, 3])
})

batching('what a read-out gives for each token is cut by responses', () => {
  const [items] = batchesOf(100, [slot(0, 4, 2, 3)])
  const cut = perItem(items!, Float32Array.of(1, 2, 3, 4, 5))
  assert.equal(
    cut.map((values) => [...values]),
    [
      [1, 2],
      [3, 4, 5],
    ],
  )
})

batching.run()
