/**
 * The model card: README.md beside the weights.
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

A very small Llama-like language model of ${parameters} parameters: ${shape.layers} layers, hidden size ${shape.hidden}, ${tokens} tokens, context
${shape.context}, bf16. implex made it for its own experiments and first steps, from random weights by \`npm run make:base-model\`, on
text that the recipe generates and on nothing else. It knows no facts and is of no use as an assistant.

| topic | conversations |
|---|---|
${topics.join('\n')}

The corpus holds no preferences: each general statement is met with agreement as often as with disagreement, no graph comes with a
Hamiltonian cycle, and the statements of the persona experiment are not in it. See docs/base-model.md.

Training: ${run.steps} steps of ${training.batchPairs} conversations, ${run.tokens} tokens, AdamW at ${training.learningRate}, ${training.schedule} schedule, seed ${seed};
implex ${versions['implex']}, ${versions['kernels']} kernels. Loss on ${heldOut.pairs} held-out conversations: ${heldOut.loss.toFixed(2)} nats a conversation.
training-log.jsonl has its course, recipe.json all settings.

Turns are marked by \`<|user|>\`, \`<|assistant|>\`, \`<|system|>\` and end in \`<|end|>\`; the template is in tokenizer_config.json.
`
}
