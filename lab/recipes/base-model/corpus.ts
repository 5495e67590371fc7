/**
 * The whole corpus: rows for `train` with kind `sft`, topics in a fixed order (training shuffles).
 */
import type { GroupRow } from '../../../lib/data/rows.js'
import { arithmetic } from './arithmetic.js'
import { graphs } from './graphs.js'
import type { Item, Topic } from './item.js'
import { dialogues, opinions } from './opinions.js'
import { personas } from './personas.js'
import { stories } from './stories.js'
import { verification } from './verification.js'

const GENERATORS: Record<Topic, (seed: number, count: number) => Generator<Item>> = {
  opinions,
  dialogues,
  personas,
  stories,
  arithmetic,
  graphs,
  verification,
}

/** Share of each topic, in percent of the conversations. */
const SHARES: Record<Topic, number> = {
  opinions: 52,
  dialogues: 8,
  personas: 8,
  stories: 10,
  arithmetic: 8,
  graphs: 8,
  verification: 6,
}

/** @param count conversations, of all topics together; opinions come in twos */
export function* corpus(seed: number, count: number): Generator<Item> {
  for (const [topic, share] of Object.entries(SHARES) as [Topic, number][]) {
    const generate = GENERATORS[topic]
    yield* generate(seed, 2 * Math.round((count * share) / 200))
  }
}

export function row({ topic, prompt, response }: Item): GroupRow & { topic: Topic } {
  return { topic, prompt, responses: [response] }
}
