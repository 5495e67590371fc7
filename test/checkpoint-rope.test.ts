/**
 * Inverse frequencies against those of transformers 5.18 with PyTorch 2.13 (float32, printed as doubles). Exact, except that the power
 * functions of different math libraries may differ in the last bit.
 */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Config } from '../lib/checkpoint/config.js'
import { readRope, readRopesByType, type Rope } from '../lib/checkpoint/rope.js'

const DEFAULT_64 = {
  0: 1.0,
  1: 0.7498942017555237,
  7: 0.1333521455526352,
  16: 0.009999999776482582,
  31: 0.0001333521504420787,
}

const LINEAR_64 = {
  0: 0.3333333432674408,
  1: 0.24996472895145416,
  7: 0.04445071518421173,
  16: 0.003333333181217313,
  31: 4.4450716814026237e-5,
}

const LLAMA3_64 = {
  0: 1.0,
  1: 0.663601279258728,
  7: 0.05666961893439293,
  13: 0.00483942124992609,
  14: 0.0032114461064338684,
  15: 0.0012905480107292533,
  16: 0.000429556705057621,
  17: 9.708286233944818e-5,
  18: 1.9461638657958247e-5,
  20: 8.570255886297673e-6,
  25: 1.1028836297555245e-6,
  31: 9.418306490260875e-8,
}

const NEOX_80 = {
  0: 1.0,
  1: 0.3981071710586548,
  5: 0.009999999776482582,
  9: 0.0002511886996217072,
}

function table(config: Record<string, unknown>, headDim: number, partial: 'whole' | number = 'whole'): Rope {
  return readRope(new Config('config.json', config), { headDim, maxPositions: 131072, partial })
}

function frequencies(...[config, headDim, partial]: Parameters<typeof table>): Float64Array {
  return table(config, headDim, partial).inverseFrequencies
}

function near(actual: Float64Array, expected: Record<number, number>): void {
  for (const [i, value] of Object.entries(expected)) {
    const error = Math.abs((actual[Number(i)] as number) / value - 1)
    assert.ok(error <= 2 ** -23, `frequency ${i}: ${actual[Number(i)]} instead of ${value}`)
  }
}

const llama3 = {
  rope_type: 'llama3',
  factor: 32,
  low_freq_factor: 1,
  high_freq_factor: 4,
  original_max_position_embeddings: 8192,
}

test('default', () => {
  near(frequencies({ rope_theta: 10000 }, 64), DEFAULT_64)
})

test('linear', () => {
  near(frequencies({ rope_theta: 10000, rope_scaling: { type: 'linear', factor: 3 } }, 64), LINEAR_64)
})

test('llama3: kept, blended and slowed bands', () => {
  near(frequencies({ rope_theta: 500000, rope_scaling: llama3 }, 64), LLAMA3_64)
})

test('GPT-NeoX rotates a part of each head', () => {
  const actual = frequencies({ rotary_emb_base: 10000, rotary_pct: 0.25 }, 80, 0.25)
  assert.is(actual.length, 10)
  near(actual, NEOX_80)
})

test('version 5 spelling means the same', () => {
  assert.equal(
    frequencies({ rope_parameters: { ...llama3, rope_theta: 500000 } }, 64),
    frequencies({ rope_theta: 500000, rope_scaling: llama3 }, 64),
  )
  assert.equal(
    frequencies({ rope_parameters: { rope_theta: 500, partial_rotary_factor: 0.5 } }, 64, 0.25),
    frequencies({ rotary_emb_base: 500, rotary_pct: 0.5, rope_scaling: null }, 64, 0.25),
  )
  assert.equal(frequencies({ rope_parameters: {} }, 64), frequencies({}, 64))
})

const YARN: Record<string, [parameters: Record<string, unknown>, scale: number, frequencies: Record<number, number>]> =
  {
    usual: [
      { factor: 32, original_max_position_embeddings: 4096 },
      1.3465735902799727,
      {
        ...{
          0: 1.0,
          1: 0.663601279258728,
          7: 0.05666961893439293,
          13: 0.0017139615956693888,
          14: 0.0007917106267996132,
        },
        ...{ 15: 0.0002959888079203665, 16: 4.4194170186528936e-5, 17: 2.932730785687454e-5, 31: 9.418306490260875e-8 },
      },
    ],
    'with bounds and scales of its own': [
      {
        ...{ factor: 16, original_max_position_embeddings: 8192, beta_fast: 16, beta_slow: 2 },
        ...{ mscale: 0.7, mscale_all_dim: 1.2 },
      },
      0.895979343709375,
      {
        ...{ 0: 1.0, 7: 0.05666961893439293, 13: 0.002570942509919405, 14: 0.0012042921734973788 },
        ...{ 15: 0.000466182449599728, 16: 8.838834037305787e-5, 17: 5.865461571374908e-5, 31: 1.883661298052175e-7 },
      },
    ],
    'with a blend between dimensions': [
      { factor: 8, original_max_position_embeddings: 4096, truncate: false, attention_factor: 1.25 },
      1.25,
      {
        ...{ 0: 1.0, 7: 0.05666961893439293, 13: 0.0020087084267288446, 14: 0.001000493997707963 },
        ...{ 15: 0.0004432899004314095, 16: 0.00017677668074611574, 31: 3.76732259610435e-7 },
      },
    ],
  }

for (const [name, [parameters, scale, expected]] of Object.entries(YARN)) {
  test(`yarn, ${name}`, () => {
    const config = { rope_theta: 500000, rope_scaling: { rope_type: 'yarn', ...parameters } }
    const rope = table(config, 64)
    near(rope.inverseFrequencies, expected)
    assert.is(rope.scale, scale)
    assert.is(rope.limit, undefined)
  })
}

const factors = (step: number) => Array.from({ length: 24 }, (_, i) => 1 + step * i)
const PHI = {
  partial_rotary_factor: 0.75,
  original_max_position_embeddings: 4096,
  rope_scaling: { type: 'longrope', short_factor: factors(0.015), long_factor: factors(0.9) },
}

test('longrope: its short factors, its scale, and where they end', () => {
  for (const type of ['longrope', 'su', 'yarn']) {
    const rope = table({ ...PHI, rope_scaling: { ...PHI.rope_scaling, type } }, 64, 1)
    assert.is(rope.rotaryDim, 48)
    near(rope.inverseFrequencies, {
      ...{ 0: 1.0, 1: 0.6712237000465393, 5: 0.13653947412967682 },
      ...{ 11: 0.01259913481771946, 17: 0.0011695614084601402, 23: 0.00010913007281487808 },
    })
    assert.is(rope.scale, 1.1902380714238083)
    assert.is(rope.limit?.positions, 4096)
  }
  const long = table({ ...PHI, original_max_position_embeddings: 131072 }, 64, 1)
  assert.is(long.limit, undefined, 'no longer context than the original one')
  assert.is(long.scale, 1)
})

const LINEAR_GEMMA = { 0: 0.125, 1: 0.08117270469665527, 7: 0.006087094079703093, 31: 1.9249081617545016e-7 }

test('two tables, of transformers 4 and 5', () => {
  const old = { rope_theta: 1e6, rope_local_base_freq: 1e4, rope_scaling: { rope_type: 'linear', factor: 8 } }
  const parameters = {
    full_attention: { rope_type: 'linear', factor: 8, rope_theta: 1e6 },
    sliding_attention: { rope_type: 'default', rope_theta: 1e4 },
  }
  const configs = [old, { rope_parameters: parameters }, { rope_scaling: old.rope_scaling }]
  for (const values of configs) {
    const defaults = { headDim: 64, maxPositions: 131072, partial: 'whole', theta: 1e6 } as const
    const { full, sliding } = readRopesByType(new Config('config.json', values), defaults, 'rope_local_base_freq', 1e4)
    near(full.inverseFrequencies, LINEAR_GEMMA)
    near(sliding.inverseFrequencies, DEFAULT_64)
  }
})

const refused: [Record<string, unknown>, RegExp][] = [
  [
    { type: 'dynamic', factor: 2 },
    /"rope_scaling.type" "dynamic" is not supported, because .* length of each sequence/,
  ],
  [
    { rope_type: 'proportional' },
    /"proportional" is not supported; supported: default, linear, llama3, yarn, longrope/,
  ],
  [{ rope_type: 'linear', factor: 2, unheard_of: 1 }, /"rope_scaling.unheard_of" is not supported/],
  [{ rope_type: 'default', mrope_section: [1, 2, 3] }, /"rope_scaling.mrope_section" is not supported/],
  [{ rope_type: 'longrope', short_factor: [1], long_factor: [1] }, /"rope_scaling.short_factor" must have 32 numbers/],
  [{ rope_type: 'longrope', short_factor: factors(1) }, /"rope_scaling.long_factor" is missing/],
  [{ rope_type: 'yarn', factor: 0 }, /"rope_scaling.factor" must be/],
  [{ rope_type: 'yarn', factor: 2, truncate: 'no' }, /"rope_scaling.truncate" must be/],
]

test('what is not supported is refused by name', () => {
  for (const [rope_scaling, message] of refused)
    assert.throws(
      () => table({ rope_scaling }, 64),
      (error: Error) => message.test(error.message),
    )
})

test.run()
