/** Families whose norms come after attention and MLP: OLMo 2 and 3, EXAONE 4. */
import { readRope, readRopesByType } from '../rope.js'
import { decoder } from './decoder.js'
import { MAX } from './sizes.js'

export const olmo2 = decoder({
  family: 'olmo2',
  opens: 'OLMo 2',
  classes: { causal: 'Olmo2' },
  refuses: 'windows',
  eps: 1e-5,
  bias: 'attention_bias',
  norms: 'after',
  qkNorm: 'width',
})

const THETA = 500_000

export const olmo3 = decoder({
  family: 'olmo3',
  opens: 'OLMo 3',
  classes: { causal: 'Olmo3' },
  eps: 1e-5,
  bias: 'attention_bias',
  norms: 'after',
  qkNorm: 'width',
  windows: { length: 4096, slides: (i) => (i + 1) % 4 !== 0 },
  ropes(config, defaults, sliding) {
    const tables = readRopesByType(config, { ...defaults, theta: THETA }, 'rope_theta', THETA)
    return { tables: [tables.full, tables.sliding], of: sliding.map(Number) }
  },
})

export const exaone4 = decoder({
  family: 'exaone4',
  opens: 'EXAONE 4.0',
  classes: { causal: 'Exaone4' },
  refuses: '`attention_bias`, `mlp_bias`',
  eps: 1e-5,
  norms: 'after',
  qkNorm: 'head',
  windows: {
    length: 4096,
    keys: ['sliding_window_pattern'],
    slides: (i, config) => (i + 1) % config.integer('sliding_window_pattern', 1, MAX.layers, 4) !== 0,
  },
  // Where there are windows, the layers without one have no rotation.
  ropes: (config, defaults, sliding) => ({
    tables: [readRope(config, defaults)],
    of: sliding.map((slides) => (slides || config.isNull('sliding_window') ? 0 : -1)),
  }),
})
