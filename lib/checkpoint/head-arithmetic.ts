/**
 * What heads that the engine does not know are computed with: layers, what comes between them, and what becomes of their outputs. All in
 * double precision.
 */
import type { HeadActivation, HeadOutput } from './heads.js'

export type Numbers = ArrayLike<number>

/** weight · input + bias. */
export function linear(input: Numbers, { weight, bias }: { weight: Numbers; bias: Numbers }): Float64Array {
  const width = input.length
  return Float64Array.from(bias, (start, row) => {
    let sum = 0
    for (let i = 0; i < width; i++) sum += (weight[row * width + i] as number) * (input[i] as number)
    return sum + start
  })
}

export function activate(values: Float64Array, activation: HeadActivation): Float64Array {
  const change = ACTIVATIONS[activation]
  return change === undefined ? values : values.map(change)
}

/** Labels of the last layer's outputs. */
export function outputOf(values: Float64Array, output: HeadOutput): Float64Array {
  if (output === 'softmax') return softmax(values)
  return output === 'sigmoid' ? values.map(sigmoid) : values
}

export function softmax(values: Float64Array): Float64Array {
  const top = values.reduce((most, value) => Math.max(most, value), Number.NEGATIVE_INFINITY)
  const exponentials = values.map((value) => Math.exp(value - top))
  const sum = exponentials.reduce((total, value) => total + value, 0)
  return exponentials.map((value) => value / sum)
}

function sigmoid(x: number): number {
  return 1 / (1 + Math.exp(-x))
}

const ACTIVATIONS: Readonly<Record<HeadActivation, ((x: number) => number) | undefined>> = {
  relu: (x) => Math.max(0, x),
  gelu: (x) => (x / 2) * errorFunctionComplement(-x / Math.SQRT2),
  gelu_tanh: (x) => (x / 2) * (1 + Math.tanh(Math.sqrt(2 / Math.PI) * (x + 0.044715 * x ** 3))),
  silu: (x) => x * sigmoid(x),
  tanh: Math.tanh,
  none: undefined,
}

/** erfc: by its series near 0, else by its continued fraction; both to about 1e-15. */
function errorFunctionComplement(x: number): number {
  if (x < 0) return 2 - errorFunctionComplement(-x)
  if (x < 2) {
    let term = x
    let sum = x
    for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum); n++) {
      term *= (-x * x) / n
      sum += term / (2 * n + 1)
    }
    return 1 - (2 / Math.sqrt(Math.PI)) * sum
  }
  let fraction = 0
  for (let n = 60; n > 0; n--) fraction = n / 2 / (x + fraction)
  return Math.exp(-x * x) / (Math.sqrt(Math.PI) * (x + fraction))
}
