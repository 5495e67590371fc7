/**
 * Rotary position embedding: the inverse frequencies of a config, as transformers computes them.
 *
 * transformers works in float32, and a frequency is multiplied by positions in the thousands, so its roundings are part of the model:
 * every step here rounds where it does there. Sources: the rope functions of transformers' modeling_rope_utils, versions 4 and 5.
 */
import type { Config } from './config.js'

export interface Rope {
  rotaryDim: number
  inverseFrequencies: Float64Array
}

export interface RopeDefaults {
  headDim: number
  maxPositions: number
  /** The part of each head that is rotated: fixed at 1, or read from the config with this default. */
  partial: 'whole' | number
}

const f32 = Math.fround
const MAX_THETA = 1e15
const MAX_FACTOR = 1e9

/**
 * Reads `rope_parameters` (transformers 5) or `rope_scaling` with `rope_theta` (4), GPT-NeoX' `rotary_emb_base` and `rotary_pct` included.
 * Types: default, linear, llama3.
 * @throws ImplexError ERR_CONFIG_INVALID naming the key
 */
export function readRope(config: Config, defaults: RopeDefaults): Rope {
  // transformers 5 lets the old key win where a config has both.
  const parameters = config.object('rope_scaling') ?? config.object('rope_parameters')
  const theta = parameters?.has('rope_theta')
    ? parameters.positive('rope_theta', MAX_THETA)
    : config.positive(config.firstOf('rope_theta', 'rotary_emb_base'), MAX_THETA, 10_000)
  const rotaryDim = readRotaryDim(config, parameters, defaults)

  const frequencies = baseFrequencies(theta, rotaryDim)
  const type = parameters?.string(parameters.firstOf('rope_type', 'type'), 'default') ?? 'default'
  if (parameters && type === 'linear') {
    const factor = parameters.positive('factor', MAX_FACTOR)
    scaleLinearly(frequencies, factor)
  } else if (parameters && type === 'llama3') {
    scaleLlama3(frequencies, readLlama3(config, parameters, defaults.maxPositions))
  } else if (type !== 'default') {
    const key = parameters?.firstOf('rope_type', 'type') ?? 'rope_type'
    throw (parameters ?? config).error(
      key,
      `${JSON.stringify(type.slice(0, 60))} is not supported; supported: default, linear, llama3`,
    )
  }
  if (!frequencies.every((frequency) => frequency > 0 && frequency <= 1)) {
    throw (parameters ?? config).error('rope_theta', 'and its scaling give frequencies outside (0, 1]')
  }
  return { rotaryDim, inverseFrequencies: frequencies }
}

function readRotaryDim(config: Config, parameters: Config | undefined, { headDim, partial }: RopeDefaults): number {
  const key = 'partial_rotary_factor'
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

function baseFrequencies(theta: number, rotaryDim: number): Float64Array {
  return Float64Array.from({ length: rotaryDim / 2 }, (_, i) => f32(1 / f32(f32(theta) ** f32((2 * i) / rotaryDim))))
}

function scaleLinearly(frequencies: Float64Array, factor: number): void {
  for (const [i, frequency] of frequencies.entries()) frequencies[i] = f32(frequency / f32(factor))
}

interface Llama3 {
  factor: number
  low: number
  high: number
  originalPositions: number
}

function readLlama3(config: Config, parameters: Config, maxPositions: number): Llama3 {
  const original = 'original_max_position_embeddings'
  const source = config.has(original) ? config : parameters
  const scaling = {
    factor: parameters.positive('factor', MAX_FACTOR),
    low: parameters.positive('low_freq_factor', MAX_FACTOR),
    high: parameters.positive('high_freq_factor', MAX_FACTOR),
    originalPositions: source.integer(original, 1, 1 << 26, maxPositions),
  }
  if (scaling.high <= scaling.low) throw parameters.error('high_freq_factor', 'must be greater than "low_freq_factor"')
  return scaling
}

/** Long waves are slowed by `factor`, short ones kept, those between blended. */
function scaleLlama3(frequencies: Float64Array, { factor, low, high, originalPositions }: Llama3): void {
  const longest = f32(originalPositions / low)
  const shortest = f32(originalPositions / high)
  for (const [i, frequency] of frequencies.entries()) {
    const wavelength = f32(f32(1 / frequency) * f32(2 * Math.PI))
    if (wavelength < shortest) continue
    if (wavelength > longest) {
      frequencies[i] = f32(frequency / f32(factor))
      continue
    }
    const cycles = f32(f32(1 / wavelength) * f32(originalPositions))
    const smooth = f32(f32(cycles - f32(low)) / f32(high - low))
    const slowed = f32(f32(f32(1 - smooth) * frequency) / f32(factor))
    frequencies[i] = f32(slowed + f32(smooth * frequency))
  }
}
