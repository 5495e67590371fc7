/**
 * Rotary position embedding: the tables of inverse frequencies of a config, as transformers computes them.
 *
 * transformers works in float32, and a frequency is multiplied by positions in the thousands, so its roundings are part of the model:
 * every step here and in rope-scaling.ts rounds where it does there.
 */
import type { Config } from './config.js'
import { baseFrequencies, type Rope, type Scaled, SCALINGS } from './rope-scaling.js'

export type { Rope }

export interface RopeDefaults {
  headDim: number
  maxPositions: number
  /** The part of each head that is rotated: fixed at 1, or read from the config with this default. */
  partial: 'whole' | number
  /** For a config without `rope_theta`. Defaults to 10000. */
  theta?: number
  /** For a config without `original_max_position_embeddings`. Defaults to `maxPositions`. */
  originalPositions?: number
  /** Further keys of its parameters, which the family reads itself. */
  keys?: readonly string[]
}

const MAX_THETA = 1e15
const THETA = 10_000
/** Keys of the types that scale, and of a table that serves several types: what the type does not read changes nothing in it. */
const KNOWN = [
  ...['type', 'rope_type', 'rope_theta', 'partial_rotary_factor', 'factor', 'original_max_position_embeddings'],
  ...['low_freq_factor', 'high_freq_factor', 'beta_fast', 'beta_slow', 'mscale', 'mscale_all_dim', 'attention_factor'],
  ...['short_factor', 'long_factor', 'max_position_embeddings', 'finetuned'],
]

/**
 * Reads `rope_parameters` (transformers 5) or `rope_scaling` with `rope_theta` (4), GPT-NeoX' `rotary_emb_base` and `rotary_pct` included.
 * Types: default, and those of rope-scaling.ts.
 * @throws ImplexError ERR_CONFIG_INVALID naming the key
 */
export function readRope(config: Config, defaults: RopeDefaults): Rope {
  return readTable(config, parametersOf(config), ['rope_theta', 'rotary_emb_base'], defaults)
}

/**
 * For a family whose windowed layers have a table of their own: `rope_parameters` by type of layer (transformers 5), or keys of their own
 * for the windowed layers (4), whose table is never scaled.
 * @param slidingKey of the windowed layers' theta in transformers 4
 */
export function readRopesByType(
  config: Config,
  defaults: RopeDefaults,
  slidingKey: string,
  slidingTheta: number,
): { full: Rope; sliding: Rope } {
  const scaling = nonEmpty(config.object('rope_scaling'))
  const byType = nonEmpty(config.object('rope_parameters'))
  const of = (type: string) => byType?.object(type)
  const [full, sliding] = [of('full_attention'), of('sliding_attention')]
  const [stray] = byType?.unknown() ?? []
  if (stray !== undefined)
    throw byType!.error(stray, 'is not supported here; supported: "full_attention", "sliding_attention"')
  config.know('rope_theta', slidingKey)
  return {
    full: readTable(config, scaling ?? full, ['rope_theta'], defaults),
    sliding: readTable(config, sliding, [slidingKey], { ...defaults, theta: slidingTheta }),
  }
}

/** transformers 5 lets the old key win where a config has both. */
export function parametersOf(config: Config): Config | undefined {
  const [old, parameters] = [nonEmpty(config.object('rope_scaling')), nonEmpty(config.object('rope_parameters'))]
  return old ?? parameters
}

const nonEmpty = (parameters: Config | undefined) => (parameters?.empty === true ? undefined : parameters)

function readTable(
  config: Config,
  parameters: Config | undefined,
  thetaKeys: [string, ...string[]],
  defaults: RopeDefaults,
): Rope {
  config.know(...thetaKeys, 'original_max_position_embeddings')
  const theta = parameters?.has('rope_theta')
    ? parameters.positive('rope_theta', MAX_THETA)
    : config.positive(config.firstOf(...thetaKeys), MAX_THETA, defaults.theta ?? THETA)
  const rotaryDim = readRotaryDim(config, parameters, defaults)
  const scaled = scale(config, parameters, theta, rotaryDim, defaults)
  parameters?.know(...KNOWN, ...(defaults.keys ?? []))
  const [stray] = parameters?.unknown() ?? []
  if (stray !== undefined) throw parameters!.error(stray, 'is not supported')
  if (!scaled.inverseFrequencies.every((frequency) => frequency > 0 && frequency <= 1)) {
    throw (parameters ?? config).error('rope_theta', 'and its scaling give frequencies outside (0, 1]')
  }
  return { rotaryDim, ...scaled }
}

function scale(
  config: Config,
  parameters: Config | undefined,
  theta: number,
  rotaryDim: number,
  { maxPositions, originalPositions = maxPositions }: RopeDefaults,
): Scaled {
  const key = parameters?.firstOf('rope_type', 'type') ?? 'rope_type'
  const named = parameters?.string(key, 'default') ?? 'default'
  if (parameters === undefined || named === 'default')
    return { inverseFrequencies: baseFrequencies(theta, rotaryDim), scale: 1 }
  // Phi-3's first configs call longrope so.
  const type = named === 'su' || (named === 'yarn' && parameters.has('short_factor')) ? 'longrope' : named
  const scaling = SCALINGS.get(type)
  if (scaling === undefined) {
    const why = type === 'dynamic' ? ', because its frequencies change with the length of each sequence' : ''
    const supported = ['default', ...SCALINGS.keys()].join(', ')
    const name = JSON.stringify(type.slice(0, 60))
    throw parameters.error(key, `${name} is not supported${why}; supported: ${supported}`)
  }
  const original = 'original_max_position_embeddings'
  const source = config.has(original) ? config : parameters
  return scaling({
    parameters,
    theta,
    rotaryDim,
    maxPositions,
    readOriginal: () => source.integer(original, 1, 1 << 26, originalPositions),
  })
}

function readRotaryDim(config: Config, parameters: Config | undefined, { headDim, partial }: RopeDefaults): number {
  const key = 'partial_rotary_factor'
  config.know(key, 'rotary_pct')
  const source = parameters?.has(key) ? parameters : config
  const name = source === config ? config.firstOf('rotary_pct', key) : key
  const fraction = source.positive(name, 1, partial === 'whole' ? 1 : partial)
  if (partial === 'whole' && fraction !== 1) throw source.unexpected(name, '1 in this family')
  const rotaryDim = Math.trunc(headDim * fraction)
  if (partial === 'whole' && (headDim < 2 || headDim % 2 !== 0)) {
    const key = config.has('head_dim') ? 'head_dim' : 'hidden_size'
    const what = key === 'head_dim' ? `is ${headDim}` : `and "num_attention_heads" give heads of ${headDim} dimensions`
    throw config.error(key, `${what}, but a rotary embedding turns pairs of dimensions: the number must be even`)
  }
  if (rotaryDim < 2 || rotaryDim % 2 !== 0) {
    throw source.error(
      name,
      `leaves ${rotaryDim} of ${headDim} dimensions to rotate; the number must be even and at least 2`,
    )
  }
  return rotaryDim
}
