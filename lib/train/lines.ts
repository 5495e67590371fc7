/**
 * Lines of metrics.jsonl. `seconds` is the only field that differs between two runs that agree bit for bit.
 */
import type { TrainEvaluation, TrainStep } from './options.js'

export function stepLine(step: TrainStep): Record<string, unknown> {
  const { steps: _, epochs: __, ...rest } = step
  return snakeKeys(rest)
}

export function evaluationLine({ name, ...rest }: TrainEvaluation): Record<string, unknown> {
  return snakeKeys({ evaluation: name, ...rest })
}

/** camelCase keys to snake_case, one level deep; NaN, which JSON has not, becomes null by itself. */
export function snakeKeys(value: object): Record<string, unknown> {
  return Object.fromEntries(
    Object.entries(value).map(([key, item]) => [key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`), item]),
  )
}
