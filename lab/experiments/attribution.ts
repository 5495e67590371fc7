/**
 * Rewards token by token: an implicit reward is a sum over tokens, an explicit one is what the head makes of the last hidden state, and
 * along the tokens one sees when it made up its mind.
 */
import type { PairRow } from '../../lib/data/rows.js'
import type { RewardModel } from '../../lib/models/reward-model.js'
import { contentText, type Message, sameTurn } from '../../lib/text/messages.js'
import type { MemberContext } from './plan.js'
import type { AttributionLine } from './result.js'

/** The first pairs of each set to explain, one for each prompt. */
export async function explain(
  model: RewardModel,
  kind: 'explicit' | 'implicit',
  seed: number,
  { plan, settings, conduct: { signal } }: MemberContext,
): Promise<AttributionLine[]> {
  const lines: AttributionLine[] = []
  for (const { name, rows } of plan.sets.filter((set) => plan.explain.includes(set.name))) {
    const indices = firstOfEachPrompt(rows).slice(0, settings.attributions)
    if (indices.length === 0) continue
    const { rows: scored } = await model.score(
      indices.map((i) => rows[i]!),
      {
        responseTokens: true,
        tokenLogprobs: kind === 'implicit',
        tokenRewards: kind === 'explicit',
        signal,
      },
    )
    for (const [i, row] of scored.entries()) {
      if (row.skipped) continue
      for (const [k, side] of (['chosen', 'rejected'] as const).entries()) {
        const reward = row.rewards[k]!
        lines.push({
          set: name,
          index: indices[i]!,
          side,
          prompt: readable(rows[indices[i]!]!),
          tokens: row.responseTokens![k]!.texts,
          ...(kind === 'implicit'
            ? {
                implicit: {
                  seed,
                  reward,
                  share: shares(row.tokenLogprobs![k]!, row.referenceTokenLogprobs![k]!, model.beta),
                },
              }
            : { explicit: { seed, reward, along: [...row.tokenRewards![k]!], pool: model.pool } }),
        })
      }
    }
  }
  return lines
}

function shares(policy: Float32Array, reference: Float32Array, beta: number): number[] {
  return Array.from(policy, (logprob, i) => beta * (logprob - reference[i]!))
}

function firstOfEachPrompt(rows: readonly PairRow[]): number[] {
  const seen = new Set<string>()
  return [...rows.keys()].filter((i) => {
    const prompt = JSON.stringify(rows[i]!.prompt ?? rows[i]!.chosen)
    return !seen.has(prompt) && seen.add(prompt)
  })
}

function readable({ prompt, chosen, rejected }: PairRow): string {
  if (typeof prompt === 'string') return prompt
  const messages = prompt ?? common(chosen as Message[], rejected as Message[])
  return messages
    .map((message) => (messages.length === 1 ? contentText(message) : `${message.role}: ${contentText(message)}`))
    .join('\n')
}

/** What two conversations begin with, which is the prompt where none is given. */
function common(a: Message[], b: Message[]): Message[] {
  const end = a.findIndex((message, i) => b[i] === undefined || !sameTurn(message, b[i]))
  return end < 0 ? a : a.slice(0, end)
}
