/**
 * The options of a training in the engine's terms.
 */
import type { NativeTrainOptions } from '../native/types.js'
import type { EncoderDescription } from '../data/encode-worker.js'
import type { InitialHead } from './head.js'
import { engineOptions } from './option-table.js'
import type { ResolvedOptions } from './resolve-options.js'

export function nativeOptions(
  { settings, conduct }: ResolvedOptions,
  encoder: EncoderDescription,
  head: InitialHead | undefined,
): NativeTrainOptions {
  const { kind, optimizer } = settings
  const parts = new Set<string>(settings.freeze)
  const rest = parts.has('all-but-head')
  const frozen = (part: string) => rest || parts.has(part)
  return {
    objective: kind,
    ...engineOptions('training', { ...settings, ...conduct }),
    yesToken: kind === 'generative' ? encoder.yesTokenId : undefined,
    noToken: kind === 'generative' ? encoder.noTokenId : undefined,
    optimizer: {
      kind: optimizer,
      beta1: settings.adamBeta1,
      beta2: optimizer === 'rmsprop' ? settings.rmspropAlpha : settings.adamBeta2,
      ...engineOptions('optimizer', settings),
    },
    frozen: {
      embedding: frozen('embedding'),
      unembedding: frozen('unembedding'),
      blocks: frozen('blocks'),
      norms: frozen('norms'),
      head: parts.has('head'),
    },
    head: head?.weight,
  }
}
