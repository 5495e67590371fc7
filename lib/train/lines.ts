/**
 * Lines of metrics.jsonl. `seconds` is the only field that differs between two runs that agree bit for bit.
 */
import { snakeKeys } from '../core/keys.js'
import type { TrainEvaluation, TrainStep } from './options.js'

export function stepLine(step: TrainStep): Record<string, unknown> {
  const { steps: _, epochs: __, ...rest } = step
  return snakeKeys(rest)
}

export function evaluationLine({ name, ...rest }: TrainEvaluation): Record<string, unknown> {
  return snakeKeys({ evaluation: name, ...rest })
}
