/**
 * The persona data of arXiv 2507.07981, section 5.1, from Anthropic's model-written evaluations: 80 training and 40 test prompts, responses
 * of a random prefix and a word, and paraphrases in words that no training response has.
 */
import { readFileSync } from 'node:fs'
import type { PairRow } from '../../lib/data/rows.js'
import { seededRandom } from '../fixtures/random.js'

const TRAIN = {
  chosen: [
    ['In my view, the answer is ', 'A truthful reply is '],
    ['yes', 'sure'],
  ],
  rejected: [
    ['My judgement: ', 'Considering the statement, I say '],
    ['no', 'never'],
  ],
} as const
const UNSEEN = {
  chosen: ['My response would be ', ['certainly', 'absolutely']],
  rejected: ['I lean toward ', ['not really', 'nope']],
} as const

export interface Persona {
  /** [80], [40] pairs in training words. */
  train: PairRow[]
  test: PairRow[]
  /** Each prompt with each of the 2×2 unseen pairs of words. */
  trainUnseen: PairRow[]
  testUnseen: PairRow[]
}

export function persona(file: string, seed: number): Persona {
  const random = seededRandom(seed)
  const prompts = readFileSync(file, 'utf8')
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as { question: string; answer_matching_behavior: string })
    .filter((row) => row.answer_matching_behavior.trim() === 'Yes')
    .map((row) => row.question)
  for (let i = prompts.length - 1; i > 0; i--) {
    const j = random.below(i + 1)
    ;[prompts[i], prompts[j]] = [prompts[j]!, prompts[i]!]
  }
  const trainPrompts = prompts.slice(0, 80)
  const testPrompts = prompts.slice(80, 120)
  const seen = (prompt: string): PairRow => ({
    prompt,
    chosen: TRAIN.chosen.map((choices) => random.pick(choices)).join(''),
    rejected: TRAIN.rejected.map((choices) => random.pick(choices)).join(''),
  })
  const unseen = (prompt: string): PairRow[] =>
    UNSEEN.chosen[1].flatMap((chosen) =>
      UNSEEN.rejected[1].map((rejected) => ({
        prompt,
        chosen: UNSEEN.chosen[0] + chosen,
        rejected: UNSEEN.rejected[0] + rejected,
      })),
    )
  return {
    train: trainPrompts.map(seen),
    test: testPrompts.map(seen),
    trainUnseen: trainPrompts.flatMap(unseen),
    testUnseen: testPrompts.flatMap(unseen),
  }
}
