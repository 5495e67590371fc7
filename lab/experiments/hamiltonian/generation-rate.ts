/**
 * How often a language model writes down a Hamiltonian cycle: one try for each graph, drawn from the model as it is (temperature 1).
 */
import type { Generation, LanguageModel } from '../../../lib/models/language-model.js'
import { verifyCycle } from './graph.js'
import type { HamiltonianPair } from './data.js'

export interface GenerationRateOptions {
  /** Defaults to 300. */
  maxNewTokens?: number
  /** Defaults to 0. */
  seed?: number
  /** Sequences decoded together; changes no result. Defaults to 64. */
  batchSize?: number
  signal?: AbortSignal
  /** Called after each graph. */
  onExample?: (example: GenerationExample) => void
}

export interface GenerationExample {
  prompt: string
  text: string
  finish: Generation['finish']
  correct: boolean
}

export interface GenerationRate {
  correct: number
  total: number
  /** In the order of the graphs. */
  examples: GenerationExample[]
}

export async function generationRate(
  model: Pick<LanguageModel, 'stream'>,
  pairs: readonly HamiltonianPair[],
  options: GenerationRateOptions = {},
): Promise<GenerationRate> {
  const { maxNewTokens = 300, seed = 0, batchSize = 64, signal, onExample } = options
  const prompts = pairs.map(({ row }) => row.prompt)
  const examples: GenerationExample[] = []
  const settings = { maxNewTokens, seed, batchSize, temperature: 1, topP: 1, topK: 0, samples: 1 }
  for await (const [generation] of model.stream(prompts, { ...settings, signal })) {
    const { text, finish } = generation!
    const { graph, row } = pairs[examples.length]!
    const example = { prompt: row.prompt, text, finish, correct: verifyCycle(graph, text) }
    examples.push(example)
    onExample?.(example)
  }
  return { correct: examples.filter(({ correct }) => correct).length, total: examples.length, examples }
}
