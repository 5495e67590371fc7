/**
 * Theorem 1: verifying needs no generating. A policy π ∝ π_ref exp(δ 1[correct] / β) ranks every correct response above every wrong one by δ,
 * while its probability of a correct one is at most exp(δ/β) times the reference's, which for rare answers is next to nothing.
 *
 * Made real in the engine: with h the hidden state at the prompt's end, adding (δ/β) h / ‖h‖² to the unembedding rows of the correct tokens
 * raises exactly their logits by δ/β.
 */
import { openCheckpoint } from '../../../lib/checkpoint/checkpoint.js'
import { pack } from '../../../lib/data/pack.js'
import { dot } from '../persona/separator.js'
import { type Check, compared, type Draw, softmax } from './checks.js'
import type { TheoryEngine } from './engine.js'
import { untiedCopy } from './untied.js'

const BETA = 0.5
const DELTA = 1
/** Correct answers: the least likely tokens. */
const CORRECT = 5
const WRONG = 40

/** @param folder where the policy is written @param base the model that the engine has */
export async function verificationWithoutGeneration(
  engine: TheoryEngine,
  { tokens }: Draw,
  base: string,
  folder: string,
): Promise<Check[]> {
  const prompt = tokens(6)
  const { hiddenSize, vocabSize } = engine.spec
  const all = Array.from({ length: vocabSize }, (_, v) => [v])
  const request = { ...pack([{ prompt, responses: all }]), readout: 'logprob' as const }
  const score = (spec = engine.spec) =>
    engine.with(async (model) => Float64Array.from((await model.score(request, engine.signal)).values), spec)
  const reference = await score()
  const order = [...reference.keys()].sort((a, b) => reference[a]! - reference[b]!)
  const [correct, wrong] = [order.slice(0, CORRECT), order.slice(-WRONG)]
  const [h] = await engine.hidden([prompt])
  const push = DELTA / BETA / dot(h!, h!)
  await untiedCopy(base, folder, (table) => {
    for (const v of correct) for (let k = 0; k < hiddenSize; k++) table[v * hiddenSize + k]! += push * h![k]!
  })
  const policy = await score((await openCheckpoint(folder)).spec)

  const reward = (v: number) => BETA * (policy[v]! - reference[v]!)
  const margins = correct.flatMap((good) => wrong.map((bad) => reward(good) - reward(bad)))
  const probability = (logprobs: Float64Array) => correct.reduce((sum, v) => sum + Math.exp(logprobs[v]!), 0)
  const [before, after] = [probability(reference), probability(policy)]
  const bound = before * Math.exp(DELTA / BETA)
  const normalized = softmax([...reference].map((z, v) => z + (correct.includes(v) ? DELTA / BETA : 0)))
  return [
    compared(
      'theorem 1: margin of correct over wrong, δ',
      margins.map(() => DELTA),
      margins,
    ),
    compared('theorem 1: π(correct)', [correct.reduce((sum, v) => sum + normalized[v]!, 0)], [after]),
    {
      statement: 'theorem 1: π(correct) / (π_ref e^(δ/β)) - 1 > 0',
      values: 1,
      predicted: 0,
      measured: Math.max(0, after / bound - 1),
      error: Math.max(0, after / bound - 1),
      bound: 1e-5,
    },
  ]
}
