/**
 * Reference log-probabilities of a set of pairs: constants of an implicit training, computed before its first step and kept on disk.
 */
import { BatchBuilder, type BatchItem, nativeBatch } from '../data/batches.js'
import { hashTokens, type ReferenceCache, type TokenHash } from '../data/reference-cache.js'
import type { Engine } from '../data/rewards.js'
import type { NativeCancel } from '../native/types.js'
import type { PairSet, TrainPair } from './pairs.js'

interface Slot {
  row: TrainPair
}

export interface ReferenceOptions {
  batchTokens: number
  cache?: ReferenceCache
  /** Called when a value is not in the cache, so that another model may be loaded only then. */
  load: () => Promise<Engine>
  cancel?: NativeCancel
  /** Asked between batches; what was computed until then is in the cache. */
  stop?: () => boolean
}

/** Fills in `reference` of every pair, unless `stop` says so first. */
export async function addReferences({ pairs }: PairSet, options: ReferenceOptions): Promise<void> {
  const batches = new BatchBuilder<Slot>(options.batchTokens)
  const work = async () => {
    for (let items = batches.take(); items !== undefined && !options.stop?.(); items = batches.take())
      await score(items, options)
  }
  for (const pair of pairs) {
    if (options.stop?.()) return
    if (await recall(pair, options.cache)) continue
    batches.add({ row: pair })
    await work()
  }
  batches.flush()
  await work()
}

const hashesOf = ({ prompt, responses }: TrainPair): TokenHash[] => {
  const start = hashTokens(prompt)
  return responses.map((response) => hashTokens(response, start))
}

/** Whether the cache knows both values of the pair. */
async function recall(pair: TrainPair, cache: ReferenceCache | undefined): Promise<boolean> {
  if (cache === undefined) return false
  const [chosen, rejected] = hashesOf(pair) as [TokenHash, TokenHash]
  const a = await cache.get(pair.ordinal, chosen)
  const b = await cache.get(pair.ordinal + 1, rejected)
  if (a === undefined || b === undefined) return false
  pair.reference = [a, b]
  return true
}

async function score(items: BatchItem<Slot>[], { load, cache, cancel }: ReferenceOptions): Promise<void> {
  const engine = await load()
  const { values } = await engine.score(nativeBatch(items, { readout: 'logprob' }), cancel)
  for (const [i, { slot, k }] of items.entries()) {
    const pair = slot.row
    pair.reference ??= [Number.NaN, Number.NaN]
    pair.reference[k as 0 | 1] = values[i]!
    await cache?.put(pair.ordinal + k, hashesOf(pair)[k]!, values[i]!)
  }
}
