/**
 * The options of a training in the engine's terms.
 */
import type { NativeTrainOptions } from '../native/types.js'
import type { RowEncoder } from '../text/text-encoder.js'
import type { InitialHead } from './head.js'
import type { ResolvedOptions } from './options.js'

export function nativeOptions(
  { settings, conduct }: ResolvedOptions,
  encoder: RowEncoder,
  head: InitialHead | undefined,
): NativeTrainOptions {
  const { kind, optimizer } = settings
  const parts = new Set<string>(settings.freeze)
  const rest = parts.has('all-but-head')
  const frozen = (part: string) => rest || parts.has(part)
  return {
    objective: kind,
    pool: settings.pool,
    beta: settings.beta,
    lengthNormalized: settings.lengthNormalized,
    labelSmoothing: settings.labelSmoothing,
    centering: settings.centering,
    yesToken: kind === 'generative' ? encoder.yesTokenId : undefined,
    noToken: kind === 'generative' ? encoder.noTokenId : undefined,
    optimizer: {
      kind: optimizer,
      beta1: settings.adamBeta1,
      beta2: optimizer === 'rmsprop' ? settings.rmspropAlpha : settings.adamBeta2,
      epsilon: settings.epsilon,
      weightDecay: settings.weightDecay,
      momentum: settings.momentum,
    },
    frozen: {
      embedding: frozen('embedding'),
      unembedding: frozen('unembedding'),
      blocks: frozen('blocks'),
      norms: frozen('norms'),
      head: parts.has('head'),
    },
    recompute: conduct.recompute,
    head: head?.weight,
  }
}
