/**
 * Inverse frequencies against those of transformers 5.18 with PyTorch 2.13 (float32, printed as doubles). Exact, except that the power
 * functions of different math libraries may differ in the last bit.
 */
import { test } from 'uvu'
import * as assert from 'uvu/assert'
import { Config } from '../lib/checkpoint/config.js'
import { readRope } from '../lib/checkpoint/rope.js'

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

function frequencies(
  config: Record<string, unknown>,
  headDim: number,
  partial: 'whole' | number = 'whole',
): Float64Array {
  return readRope(new Config('config.json', config), { headDim, maxPositions: 131072, partial }).inverseFrequencies
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

test.run()
