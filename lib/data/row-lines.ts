/**
 * One scored row as a line of the output of `implex score`, and back, for a run that is continued.
 */
import type { ScoredRow } from './score-rows.js'

/** What the summary counts of a row; a line of output says it all. */
export interface RowFacts {
  index: number
  /** Rewards of a pair. */
  pair?: [chosen: number, rejected: number]
  responses: number
  error: boolean
  skipped: boolean
  truncated: boolean
  borderDiffers: boolean
  promptParted: boolean
}

/** The id comes out with the digits it came in with, which JSON.stringify does not know. */
export function formatRow(row: ScoredRow, tokenLogprobs: boolean): string {
  const line = formatWithoutId(row, tokenLogprobs)
  const id = row.idText ?? (typeof row.id === 'bigint' ? String(row.id) : JSON.stringify(row.id))
  return id === undefined ? line : `{"id":${id},${line.slice(1)}`
}

function formatWithoutId(row: ScoredRow, tokenLogprobs: boolean): string {
  const head = { index: row.index }
  if (row.error !== undefined) {
    const { code, message, line } = row.error
    return JSON.stringify({ ...head, error: { code, message, line }, skipped: row.skipped })
  }
  const tail = { truncated: row.truncated, border_differs: row.borderDiffers, prompt_parted: row.promptParted }
  if (row.shape === 'group') {
    return JSON.stringify({
      ...head,
      rewards: row.rewards,
      prompt_tokens: row.promptTokens,
      tokens: row.tokens,
      ...tail,
      step_rewards: row.stepRewards,
      label_rewards: row.labelRewards,
      ...(tokenLogprobs
        ? {
            logprobs: row.logprobs,
            reference_logprobs: row.referenceLogprobs,
            token_logprobs: row.tokenLogprobs!.map((terms) => [...terms]),
            reference_token_logprobs: row.referenceTokenLogprobs?.map((terms) => [...terms]),
          }
        : {}),
    })
  }
  const [chosen, rejected] = row.rewards as [number, number]
  return JSON.stringify({
    ...head,
    chosen_reward: chosen,
    rejected_reward: rejected,
    margin: chosen - rejected,
    prompt_tokens: row.promptTokens,
    chosen_tokens: row.tokens[0],
    rejected_tokens: row.tokens[1],
    ...tail,
    chosen_step_rewards: row.stepRewards?.[0],
    rejected_step_rewards: row.stepRewards?.[1],
    chosen_label_rewards: row.labelRewards?.[0],
    rejected_label_rewards: row.labelRewards?.[1],
    ...(tokenLogprobs
      ? {
          chosen_logprob: row.logprobs![0],
          rejected_logprob: row.logprobs![1],
          chosen_reference_logprob: row.referenceLogprobs?.[0],
          rejected_reference_logprob: row.referenceLogprobs?.[1],
          chosen_token_logprobs: [...row.tokenLogprobs![0]!],
          rejected_token_logprobs: [...row.tokenLogprobs![1]!],
          chosen_reference_token_logprobs: row.referenceTokenLogprobs && [...row.referenceTokenLogprobs[0]!],
          rejected_reference_token_logprobs: row.referenceTokenLogprobs && [...row.referenceTokenLogprobs[1]!],
        }
      : {}),
  })
}

export function factsOf(row: ScoredRow): RowFacts {
  return {
    index: row.index,
    ...(row.shape === 'pair' && row.error === undefined ? { pair: row.rewards as [number, number] } : {}),
    responses: row.rewards.length,
    error: row.error !== undefined && row.skipped !== true,
    skipped: row.skipped === true,
    truncated: row.truncated === true,
    borderDiffers: row.borderDiffers === true,
    promptParted: row.promptParted === true,
  }
}

/** Undefined when the line is none of ours. */
export function parseFacts(line: string): RowFacts | undefined {
  let row: Record<string, unknown>
  try {
    row = JSON.parse(line) as Record<string, unknown>
  } catch {
    return undefined
  }
  const { index, chosen_reward: chosen, rejected_reward: rejected, rewards, error, skipped } = row ?? {}
  if (typeof index !== 'number') return undefined
  const facts = {
    index,
    responses: 0,
    error: false,
    skipped: skipped === true,
    truncated: row.truncated === true,
    borderDiffers: row.border_differs === true,
    promptParted: row.prompt_parted === true,
  }
  if (error !== undefined) return { ...facts, error: skipped !== true }
  if (typeof chosen === 'number' && typeof rejected === 'number')
    return { ...facts, responses: 2, pair: [chosen, rejected] }
  return Array.isArray(rewards) ? { ...facts, responses: rewards.length } : undefined
}
