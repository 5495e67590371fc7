/**
 * The data of section 5.1 of arXiv 2507.07981: statements of a persona, and responses that agree or disagree in words seen in training, or in
 * others. What is trained and tested differs by the prompt alone, or by the words alone.
 */
import type { PairRow } from '../../../lib/data/rows.js'
import { ImplexError } from '../../../lib/core/errors.js'
import { Random } from '../../../lib/core/random.js'
import { readRows, textField } from '../read-rows.js'

/** Stream of this experiment's random numbers. */
const STREAM = 20
const COLUMNS = ['question', 'answer_matching_behavior']

/** Responses of the training: a prefix and a word, each drawn at random. */
export const SEEN = {
  chosen: { prefixes: ['In my view, the answer is ', 'A truthful reply is '], words: ['yes', 'sure'] },
  rejected: { prefixes: ['My judgement: ', 'Considering the statement, I say '], words: ['no', 'never'] },
} as const

/** Responses that mean the same and share no word with those. */
export const UNSEEN = {
  chosen: { prefix: 'My response would be ', words: ['certainly', 'absolutely'] },
  rejected: { prefix: 'I lean toward ', words: ['not really', 'nope'] },
} as const

export interface PersonaData {
  /** Pairs in training words, on training prompts and on others. */
  train: PairRow[]
  test: PairRow[]
  /** Each prompt with each of the 2×2 unseen pairs of words. */
  trainUnseen: PairRow[]
  testUnseen: PairRow[]
}

export interface PersonaDataOptions {
  /** JSON Lines with `question` and `answer_matching_behavior`, as Anthropic's model-written evaluations have them. */
  file: string
  trainPairs: number
  testPairs: number
  /** Seed for choosing prompts and responses. */
  seed: number
}

/** @throws ImplexError ERR_ROW_INVALID naming the line, or for too few statements; ERR_IO */
export async function personaData({ file, trainPairs, testPairs, seed }: PersonaDataOptions): Promise<PersonaData> {
  const questions = await readQuestions(file)
  if (questions.length < trainPairs + testPairs) {
    throw new ImplexError(
      'ERR_ROW_INVALID',
      `${file}: only ${questions.length} statements have the matching answer "Yes", too few for ${trainPairs} training prompts and ${testPairs} test prompts`,
      { path: file },
    )
  }
  const random = Random.seeded(seed, STREAM)
  const order = random.permutation(questions.length)
  const prompts = Array.from(order.subarray(0, trainPairs + testPairs), (i) => questions[i]!)
  const pick = <T>(list: readonly T[]): T => list[random.below(list.length)]!
  const respond = ({ prefixes, words }: (typeof SEEN)[keyof typeof SEEN]) => pick(prefixes) + pick(words)
  const seen = (prompt: string): PairRow => ({
    prompt,
    chosen: respond(SEEN.chosen),
    rejected: respond(SEEN.rejected),
  })
  const unseen = (prompt: string): PairRow[] =>
    UNSEEN.chosen.words.flatMap((chosen) =>
      UNSEEN.rejected.words.map((rejected) => ({
        prompt,
        chosen: UNSEEN.chosen.prefix + chosen,
        rejected: UNSEEN.rejected.prefix + rejected,
      })),
    )
  const [first, second] = [prompts.slice(0, trainPairs), prompts.slice(trainPairs)]
  return {
    train: first.map(seen),
    test: second.map(seen),
    trainUnseen: first.flatMap(unseen),
    testUnseen: second.flatMap(unseen),
  }
}

/** Questions whose answer in the persona's spirit is "Yes": the paper uses no others. */
async function readQuestions(file: string): Promise<string[]> {
  const questions: string[] = []
  for await (const row of readRows(file)) {
    const [question, answer] = COLUMNS.map((name) => textField(row, name, COLUMNS)) as [string, string]
    if (answer.trim() === 'Yes') questions.push(question)
  }
  return questions
}
