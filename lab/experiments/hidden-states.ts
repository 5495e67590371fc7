/**
 * Hidden states of pairs: what an explicit reward's head sees, at the last token of prompt and response, after the final norm.
 */
import { BatchBuilder, nativeBatch } from '../../lib/data/pack.js'
import type { EncodedRow } from '../../lib/data/encode.js'
import type { PairRow } from '../../lib/data/rows.js'
import { rowSource } from '../../lib/data/sources.js'
import { limitsOf, openText, openToScore } from '../../lib/models/open.js'
import { defaultBatchTokens } from '../../lib/native/device.js'
import { DEFAULT_BORDER } from '../../lib/text/conversation.js'
import type { ExperimentConduct, ExperimentSettings } from './options.js'

/** The hidden states of one pair, of shape [D] each (D: hidden size). */
export interface HiddenPair {
  chosen: Float64Array
  rejected: Float64Array
}

/** @returns by set, in the order of its rows; rows beyond the context are errors whatever `onLong` says */
export async function hiddenStates(
  model: string,
  now: Date,
  { dtype, template }: Pick<ExperimentSettings, 'dtype' | 'template'>,
  { device, signal }: Pick<ExperimentConduct, 'device' | 'signal'>,
  sets: Record<string, readonly PairRow[]>,
): Promise<Record<string, HiddenPair[]>> {
  const { checkpoint, pool } = await openText({ path: model, template, kind: 'explicit', now }, 1)
  try {
    const { hiddenSize } = checkpoint.spec
    const { border = DEFAULT_BORDER } = checkpoint
    const settings = { kind: 'explicit', border, onLong: 'error', ...limitsOf(checkpoint) } as const
    const opened = await openToScore(checkpoint, { use: 'hidden', who: 'hidden states' }, { device, dtype }, signal)
    using engine = opened.model
    const found: [name: string, HiddenPair[]][] = []
    for (const [name, rows] of Object.entries(sets)) {
      const batches = new BatchBuilder<{ row: EncodedRow }>(defaultBatchTokens(opened.device))
      for await (const encoded of pool.encode(rowSource(rows).chunks(), settings)) {
        for (const row of encoded) {
          if (row.error !== undefined) throw row.error
          batches.add({ row })
        }
      }
      batches.flush()
      const states: Float64Array[] = []
      for (let items = batches.take(); items !== undefined; items = batches.take()) {
        const { values } = await engine.score(nativeBatch(items, { readout: 'hidden_last' }), signal)
        for (let i = 0; i < items.length; i++) states.push(values.slice(i * hiddenSize, (i + 1) * hiddenSize))
      }
      found.push([name, rows.map((_, i) => ({ chosen: states[2 * i]!, rejected: states[2 * i + 1]! }))])
    }
    return Object.fromEntries(found)
  } finally {
    pool.close()
  }
}
