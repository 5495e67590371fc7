/**
 * Hidden states of pairs: what an explicit reward's head sees, at the last token of prompt and response, after the final norm.
 */
import { openCheckpoint } from '../../lib/checkpoint/checkpoint.js'
import { BatchBuilder, nativeBatch } from '../../lib/data/batches.js'
import { EncodePool } from '../../lib/data/encode-pool.js'
import type { EncodedRow } from '../../lib/data/encode.js'
import type { PairRow } from '../../lib/data/rows.js'
import { rowSource } from '../../lib/data/sources.js'
import { openOnDevice } from '../../lib/native/device.js'
import type { ExperimentConduct, ExperimentSettings } from './options.js'

/** Of one pair, [D] each. */
export interface HiddenPair {
  chosen: Float64Array
  rejected: Float64Array
}

const BATCH_TOKENS = 4096

/** @returns by set, in the order of its rows; rows beyond the context are errors whatever `onLong` says */
export async function hiddenStates(
  model: string,
  now: Date,
  { dtype, template }: Pick<ExperimentSettings, 'dtype' | 'template'>,
  { device, signal }: Pick<ExperimentConduct, 'device' | 'signal'>,
  sets: Record<string, readonly PairRow[]>,
): Promise<Record<string, HiddenPair[]>> {
  const { spec, contextLength } = await openCheckpoint(model)
  const opened = await openOnDevice(spec, { device, dtype }, signal)
  const pool = await EncodePool.start({ path: model, template, kind: 'explicit', now }, 1)
  const settings = {
    kind: 'explicit' as const,
    onLong: 'error' as const,
    contextLength,
    vocabularySize: spec.vocabSize,
  }
  try {
    const found: Record<string, HiddenPair[]> = {}
    for (const [name, rows] of Object.entries(sets)) {
      const batches = new BatchBuilder<{ row: EncodedRow }>(BATCH_TOKENS)
      for await (const encoded of pool.encode(rowSource(rows).chunks(), settings)) {
        for (const row of encoded) {
          if (row.error !== undefined) throw row.error
          batches.add({ row })
        }
      }
      batches.flush()
      const states: Float64Array[] = []
      for (let items = batches.take(); items !== undefined; items = batches.take()) {
        const { values } = await opened.model.score(nativeBatch(items, { readout: 'hidden_last' }), signal)
        for (let i = 0; i < items.length; i++) states.push(values.slice(i * spec.hiddenSize, (i + 1) * spec.hiddenSize))
      }
      found[name] = rows.map((_, i) => ({ chosen: states[2 * i]!, rejected: states[2 * i + 1]! }))
    }
    return found
  } finally {
    pool.close()
    opened.model.dispose()
  }
}
