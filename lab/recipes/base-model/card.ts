/**
 * The model card of the base model: the README.md in models/base, beside the weights.
 */
import type { TrainSummary } from '../../../lib/train/runs/summary.js'
import type { Made } from './settings.js'

export function modelCard(made: Made, { evaluation }: TrainSummary): string {
  const { seed, parameters, tokens, shape, training, corpus, versions, run } = made
  const topics = Object.entries(corpus).map(([topic, count]) => `| ${topic} | ${count} |`)
  const heldOut = evaluation['held-out'] as { loss: number; pairs: number }
  return `---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: text-generation
---
# implex base model

A very small Llama-like language model with ${parameters} parameters: ${shape.layers} layers, hidden size ${shape.hidden}, ${tokens} tokens, context
${shape.context}, bf16. implex uses it for its own experiments and first steps. \`npm run make:base-model\` made it from random weights
on text that the recipe generates and no other. It knows no facts and is of no use as an assistant.

| topic | conversations |
|---|---|
${topics.join('\n')}

The corpus contains no preferences. Each general statement gets agreement as often as disagreement, no graph comes with a Hamiltonian
cycle, and the statements of the persona experiment are not in it. See docs/base-model.md.

Training: ${run.steps} steps of ${training.batchPairs} conversations, ${run.tokens} tokens, AdamW at ${training.learningRate}, ${training.schedule} schedule, seed ${seed};
implex ${versions['implex']}, ${versions['kernels']} kernels. Loss on ${heldOut.pairs} held-out conversations: ${heldOut.loss.toFixed(2)} nats per conversation.
training-log.jsonl has the metrics of each step, recipe.json all settings.

A turn begins with \`<|user|>\`, \`<|assistant|>\` or \`<|system|>\` and ends with \`<|end|>\`. The template is in tokenizer_config.json.
`
}
