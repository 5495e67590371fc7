/**
 * The ways in which rotary frequencies are stretched for longer contexts. A new one is one entry in SCALINGS. Sources: the rope functions of
 * transformers' modeling_rope_utils, versions 4 and 5; f32() stands where float32 tensors round there.
 */
import type { Config } from './config.js'
import type { RopeSpec } from '../native/spec.js'

/** A table of rotary positions. */
export interface Rope extends RopeSpec {
  /** The longest sequence for which these frequencies hold, where that is less than the config's, and why. */
  limit?: { positions: number; reason: string }
}

export type Scaled = Omit<Rope, 'rotaryDim'>

export interface ScalingInput {
  parameters: Config
  theta: number
  rotaryDim: number
  /** The config's. */
  maxPositions: number
  /** `original_max_position_embeddings`. */
  readOriginal(): number
}

const f32 = Math.fround
export const MAX_FACTOR = 1e9

/** theta ^ (2i / dim). */
function powers(theta: number, rotaryDim: number): number[] {
  return Array.from({ length: rotaryDim / 2 }, (_, i) => f32(f32(theta) ** f32((2 * i) / rotaryDim)))
}

export function baseFrequencies(theta: number, rotaryDim: number): Float64Array {
  return Float64Array.from(powers(theta, rotaryDim), (power) => f32(1 / power))
}

function linear({ parameters, theta, rotaryDim }: ScalingInput): Scaled {
  const factor = f32(parameters.positive('factor', MAX_FACTOR))
  const inverseFrequencies = baseFrequencies(theta, rotaryDim).map((frequency) => f32(frequency / factor))
  return { inverseFrequencies, scale: 1 }
}

/** Long waves are slowed by `factor`, short ones kept, those between blended. */
function llama3({ parameters, theta, rotaryDim, readOriginal }: ScalingInput): Scaled {
  const factor = parameters.positive('factor', MAX_FACTOR)
  const low = parameters.positive('low_freq_factor', MAX_FACTOR)
  const high = parameters.positive('high_freq_factor', MAX_FACTOR)
  const originalPositions = readOriginal()
  if (high <= low) throw parameters.error('high_freq_factor', 'must be greater than "low_freq_factor"')
  const longest = f32(originalPositions / low)
  const shortest = f32(originalPositions / high)
  const inverseFrequencies = baseFrequencies(theta, rotaryDim).map((frequency) => {
    const wavelength = f32(f32(1 / frequency) * f32(2 * Math.PI))
    if (wavelength < shortest) return frequency
    if (wavelength > longest) return f32(frequency / f32(factor))
    const cycles = f32(f32(1 / wavelength) * f32(originalPositions))
    const smooth = f32(f32(cycles - f32(low)) / f32(high - low))
    const slowed = f32(f32(f32(1 - smooth) * frequency) / f32(factor))
    return f32(slowed + f32(smooth * frequency))
  })
  return { inverseFrequencies, scale: 1 }
}

/** As llama3, but the blend goes by the dimension, and the longer context also makes the scores larger. */
function yarn({ parameters, theta, rotaryDim, maxPositions, readOriginal }: ScalingInput): Scaled {
  const original = readOriginal()
  const factor = parameters.positive('factor', MAX_FACTOR, maxPositions / original)
  const fast = parameters.positive('beta_fast', MAX_FACTOR, 32)
  const slow = parameters.positive('beta_slow', MAX_FACTOR, 1)
  const whole = parameters.boolean('truncate', true)
  /** The dimension whose wave turns so often within the original context. */
  const dimensionOf = (rotations: number) =>
    (rotaryDim * Math.log(original / (rotations * 2 * Math.PI))) / (2 * Math.log(theta))
  const [from, to] = [dimensionOf(fast), dimensionOf(slow)]
  const low = Math.max(whole ? Math.floor(from) : from, 0)
  const high = Math.min(whole ? Math.ceil(to) : to, rotaryDim - 1)
  const width = low === high ? 0.001 : high - low
  const inverseFrequencies = Float64Array.from(powers(theta, rotaryDim), (power, i) => {
    const ramp = Math.min(Math.max(f32(f32(i - f32(low)) / f32(width)), 0), 1)
    const kept = f32(1 - ramp)
    const slowed = f32(f32(1 / f32(f32(factor) * power)) * f32(1 - kept))
    return f32(slowed + f32(f32(1 / power) * kept))
  })
  return { inverseFrequencies, scale: readYarnScale(parameters, factor) }
}

function readYarnScale(parameters: Config, factor: number): number {
  const given = parameters.has('attention_factor')
  const times = (scale: number) => (factor <= 1 ? 1 : 0.1 * scale * Math.log(factor) + 1)
  // 0 turns either off.
  const read = (key: string) =>
    parameters.has(key) && parameters.get(key) !== 0 ? parameters.positive(key, MAX_FACTOR) : undefined
  const [one, all] = [read('mscale'), read('mscale_all_dim')]
  if (given) return parameters.positive('attention_factor', MAX_FACTOR)
  return one !== undefined && all !== undefined ? times(one) / times(all) : times(1)
}

/**
 * Each frequency has a factor of its own, and a second one for sequences beyond the original context. Which of the two holds would depend on
 * the length of the sequence, so a prompt's bits would depend on what follows it: only the first are used, and longer sequences refused.
 */
function longrope({ parameters, theta, rotaryDim, maxPositions, readOriginal }: ScalingInput): Scaled {
  const original = readOriginal()
  const factors = parameters.numbers('short_factor', MAX_FACTOR)
  const long = parameters.numbers('long_factor', MAX_FACTOR)
  for (const [key, { length }] of Object.entries({ short_factor: factors, long_factor: long })) {
    if (length === rotaryDim / 2) continue
    throw parameters.error(key, `must have ${rotaryDim / 2} numbers, one for each pair of dimensions; it has ${length}`)
  }
  const factor = parameters.positive('factor', MAX_FACTOR, maxPositions / original)
  const fallback = factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(original))
  const inverseFrequencies = Float64Array.from(powers(theta, rotaryDim), (power, i) =>
    f32(1 / f32(f32(factors[i]!) * power)),
  )
  const reason = 'its longrope has other frequencies for longer ones, at every position'
  return {
    inverseFrequencies,
    scale: parameters.positive('attention_factor', MAX_FACTOR, fallback),
    ...(original < maxPositions ? { limit: { positions: original, reason } } : {}),
  }
}

export const SCALINGS: ReadonlyMap<string, (input: ScalingInput) => Scaled> = new Map([
  ['linear', linear],
  ['llama3', llama3],
  ['yarn', yarn],
  ['longrope', longrope],
])
