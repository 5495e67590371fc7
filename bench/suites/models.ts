/**
 * What `implex bench score` and `train` share: the texts, the checkpoints made for them, and a clock.
 */
import { createHash } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { EncodedRow } from '../../lib/data/encode.js'
import { defaultCacheDir } from '../../lib/data/reference-cache.js'
import type { DeviceName, DType } from '../../lib/native/device.js'
import { checkpointPath, ensureCheckpoint, ensureHead, type ModelSize } from './checkpoint.js'
import type { BenchCase } from './result.js'
import { allTexts, madeUpPairs, type Pair, pairsOf } from './texts.js'
import { encodePairs, type WorkloadOptions } from './workload.js'

export interface ModelSuiteOptions {
  device: DeviceName
  dtypes: readonly DType[]
  /** JSONL of preference pairs. Absent: made-up texts. */
  data?: string
  /** Pairs per case. */
  pairs: number
  sizes: readonly ModelSize[]
  /** Timed repetitions of each case. */
  samples: number
  /** Leaves out what only makes sense at full size. */
  quick?: boolean
  /** Folder for the generated checkpoints. Defaults to implex's cache. */
  folder?: string
  signal?: AbortSignal
  onCase?: (item: BenchCase) => void
}

/** Texts come before checkpoints: the tokenizer's vocabulary is made from them, so the folder bears their hash. */
export async function readPairs({
  data,
  pairs,
  folder,
}: Pick<ModelSuiteOptions, 'data' | 'pairs' | 'folder'>): Promise<{ pairs: Pair[]; folder: string }> {
  const rows = data === undefined ? madeUpPairs(pairs) : await pairsOf(data, pairs)
  const hash = createHash('sha256').update(JSON.stringify(rows)).digest('hex').slice(0, 12)
  return { pairs: rows, folder: join(folder ?? join(defaultCacheDir(), 'bench'), hash) }
}

export interface PreparedModel {
  rows: EncodedRow[]
  options: WorkloadOptions
}

/** Makes policy, reference and head of a size where they are not there yet, and encodes the pairs. */
export async function prepareModel(
  size: ModelSize,
  { pairs, folder, device, dtype }: { pairs: readonly Pair[]; folder: string; device: DeviceName; dtype: DType },
): Promise<PreparedModel> {
  await mkdir(folder, { recursive: true })
  const policy = checkpointPath(folder, size, 'policy')
  const reference = checkpointPath(folder, size, 'reference')
  const head = join(folder, `${size.name}-head.safetensors`)
  await ensureCheckpoint(policy, size, allTexts(pairs), 1)
  await ensureCheckpoint(reference, size, allTexts(pairs), 2)
  await ensureHead(head, size)
  return { rows: await encodePairs(policy, pairs), options: { policy, reference, head, device, dtype } }
}

/** Times of `samples` runs in seconds, after one warm-up run. */
export async function timed(samples: number, run: () => Promise<unknown>, signal?: AbortSignal): Promise<number[]> {
  const seconds: number[] = []
  for (let i = -1; i < samples; i++) {
    signal?.throwIfAborted()
    const start = performance.now()
    await run()
    if (i >= 0) seconds.push((performance.now() - start) / 1000)
  }
  return seconds
}
