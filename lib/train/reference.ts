/**
 * Reference log-probabilities of a run's pairs: constants of an implicit training, computed before its first step and kept on disk.
 */
import { BatchBuilder } from '../data/pack.js'
import { type Engine, type ReferenceOptions, referenceKey, referenceLogprobs, type Slot } from '../data/reference.js'
import { ReferenceCache, type ReferenceKey } from '../data/reference-cache.js'
import type { RowSource } from '../data/rows.js'
import type { NativeCancel } from '../native/types.js'
import type { PairSet, TrainPair } from './pairs.js'

export interface RunReferencesOptions {
  sets: readonly { set: PairSet; source: RowSource }[]
  /** What the key has beside the data and the engine; undefined: nothing is kept on disk. */
  key?: Pick<ReferenceKey, 'weights' | 'text' | 'dtype' | 'border' | 'onLong' | 'contextLength'>
  cacheDir: string
  onWarning: (message: string) => void
  cancel: NativeCancel
  /** Asked between batches; what was computed until then is in the cache. */
  stop: () => boolean
}

/** Fills in `reference` of every pair of a run. */
export class RunReferences {
  /** Found on disk, and not found there. */
  hits = 0
  misses = 0
  readonly #options: RunReferencesOptions

  constructor(options: RunReferencesOptions) {
    this.#options = options
  }

  async fill(engine: Engine & { kernels: string }, device: string, batchTokens: number): Promise<void> {
    const { sets, cancel, stop } = this.#options
    for (const { set, source } of sets) {
      const cache = await this.#open(set, source, device, engine.kernels)
      try {
        await addReferences(set, { batchTokens, load: async () => engine, cache, cancel, stop })
      } finally {
        this.hits += cache?.hits ?? 0
        this.misses += cache?.misses ?? 0
        await cache?.close()
      }
    }
  }

  async #open(set: PairSet, source: RowSource, device: string, kernels: string): Promise<ReferenceCache | undefined> {
    const { key, cacheDir, onWarning } = this.#options
    if (key === undefined) return undefined
    const data = (await source.fingerprint?.()) ?? set.fingerprint
    return ReferenceCache.open(cacheDir, referenceKey({ ...key, data, device, kernels }), onWarning)
  }
}

interface PairSlot extends Slot {
  row: TrainPair
}

interface AddOptions extends Omit<ReferenceOptions, 'tokenLogprobs'> {
  batchTokens: number
  stop: () => boolean
}

/** Fills in `reference` of every pair, unless `stop` says so first. */
async function addReferences({ pairs }: PairSet, options: AddOptions): Promise<void> {
  const batches = new BatchBuilder<PairSlot>(options.batchTokens)
  const work = async () => {
    for (let items = batches.take(); items !== undefined && !options.stop(); items = batches.take()) {
      const found = await referenceLogprobs(items, options)
      for (const [i, { slot, k }] of items.entries()) {
        slot.row.reference ??= [Number.NaN, Number.NaN]
        slot.row.reference[k as 0 | 1] = found[i]!.referenceLogprob
      }
    }
  }
  for (const row of pairs) {
    if (options.stop()) return
    batches.add({ row, ordinal: row.ordinal })
    await work()
  }
  batches.flush()
  await work()
}
