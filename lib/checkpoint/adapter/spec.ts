/**
 * The weights of a base model with what its adapter replaces as a whole: tensors of its own, the head, and an unembedding that is no longer
 * the embedding.
 */
import { ImplexError } from '../../core/errors.js'
import { quoted } from '../../core/files.js'
import type { ModelSpec, WeightSource } from '../../native/spec.js'
import type { Checkpoint } from '../checkpoint.js'
import { type HeadSource, isOneRow } from '../heads.js'
import { headWeight } from '../weights.js'
import type { Adapter } from './types.js'
import { Targets } from './targets.js'

/** @throws ImplexError ERR_TENSOR_SHAPE for an embedding and an unembedding of different lengths, ERR_CONFIG_INVALID for weights to tie */
export function adaptedSpec(
  base: Checkpoint,
  adapter: Adapter,
  heads: readonly HeadSource[],
): { spec: ModelSpec; notes: string[] } {
  const { spec } = base
  const weights = new Map(spec.weights.map((weight) => [weight.role, weight]))
  const own = weights.get('embedding') as WeightSource
  for (const [role, source] of adapter.replaced) weights.set(role, source)
  const notes: string[] = []
  let { tiedEmbedding } = spec
  if (tiedEmbedding) {
    const apart = unembeddingOf(adapter, own)
    if (apart !== undefined) {
      refuseTying(adapter)
      tiedEmbedding = false
      weights.set('unembedding', apart)
      notes.push(
        `${adapter.path}: the base ties embedding and unembedding; with this adapter they are two, as peft computes without merging`,
      )
    } else weights.delete('unembedding')
  }
  const vocabSize = checkVocabulary(weights, spec.vocabSize)
  weights.delete('head')
  const [head] = heads
  if (head !== undefined && heads.length === 1 && isOneRow(head)) weights.set('head', headWeight(head))
  return { spec: { ...spec, vocabSize, tiedEmbedding, weights: [...weights.values()] }, notes }
}

/** For the engine to add the low-rank parts while it computes: the adapter must not be one that has to be merged. */
export function lowRankSpec(spec: ModelSpec, { lowRank }: Adapter): ModelSpec {
  const matrices = lowRank.flatMap(({ role, a, b }) => [
    { ...a, role: `${role}.lora_a` },
    { ...b, role: `${role}.lora_b` },
  ])
  const adapters = lowRank.map(({ role, scale, a }) => ({ role, rank: a.shape[0]!, scale }))
  return { ...spec, adapters, weights: [...spec.weights, ...matrices] }
}

/** An unembedding that differs from the embedding, of a base that ties them. A copy that modules_to_save trains leaves the other one as it was. */
function unembeddingOf(adapter: Adapter, own: WeightSource): WeightSource | undefined {
  const { replaced, embedding, lowRank, settings } = adapter
  const saved = replaced.get('embedding')
  const copied = saved !== undefined && new Targets(settings).savesWhole(moduleOf(saved))
  const apart = copied || embedding !== undefined || lowRank.some(({ role }) => role === 'unembedding')
  const unembedding = replaced.get('unembedding')
  if (unembedding === undefined && !apart) return undefined
  return { ...(unembedding ?? (saved !== undefined && !copied ? saved : own)), role: 'unembedding' }
}

function moduleOf({ tensor }: WeightSource): string {
  return tensor.replace(/^base_model\.model\./, '').replace(/(\.base_layer)?\.weight$/, '')
}

function refuseTying({ settings: { tiesWeights, file } }: Adapter): void {
  if (!tiesWeights) return
  const message = `${file}: "ensure_weight_tying" is not supported for an adapter that changes the embedding or the unembedding of a base that ties them`
  throw new ImplexError('ERR_CONFIG_INVALID', message, { path: file })
}

function checkVocabulary(weights: ReadonlyMap<string, WeightSource>, vocabSize: number): number {
  const embedding = weights.get('embedding') as WeightSource
  const unembedding = weights.get('unembedding')
  const rows = embedding.shape[0] ?? vocabSize
  if (unembedding === undefined || unembedding.shape[0] === rows) return rows
  const { file, tensor, shape } = unembedding
  const message = `${file}: tensor ${quoted(tensor)} has ${shape[0]} rows, but the embedding ${quoted(embedding.tensor)} has ${rows}`
  throw new ImplexError('ERR_TENSOR_SHAPE', message, { path: file })
}
