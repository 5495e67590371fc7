/**
 * Where the steps of a response end, for process rewards: at each token of one kind, or where a pattern's matches in the text end.
 */
import { contentText } from '../text/messages.js'
import type { RowEncoder } from '../text/text-encoder.js'
import type { RowGroup, Text } from './rows.js'

/** Plain data: crosses to a thread. */
export type StepEnds = { tokenId: number; name: string } | { pattern: RegExp }

/** What a row with a list of steps has between them, where a pattern finds their ends: TRL's separator. */
const SEPARATOR = '\n'

/** How a row's step rewards become its reward. */
export const STEP_AGGREGATES = ['min', 'mean', 'last', 'product'] as const
export type StepAggregate = (typeof STEP_AGGREGATES)[number]

export function aggregateSteps(rewards: readonly number[], how: StepAggregate): number {
  if (how === 'last') return rewards.at(-1)!
  if (how === 'min') return Math.min(...rewards)
  if (how === 'product') return rewards.reduce((product, reward) => product * reward, 1)
  return rewards.reduce((sum, reward) => sum + reward, 0) / rewards.length
}

/** The row with its list of steps written as one response, each step before what ends it. */
export function withStepTexts(group: RowGroup, encoder: RowEncoder, ends: StepEnds): RowGroup {
  if (group.steps === undefined) return group
  const end = 'pattern' in ends ? SEPARATOR : encoder.tokenTexts([ends.tokenId]).join('')
  return { ...group, responses: [group.steps.map((step) => step + end).join('')] }
}

/** Indices of the response's tokens at which a step ends, ascending. */
export function findStepEnds(encoder: RowEncoder, ids: Int32Array, response: Text, ends: StepEnds): number[] {
  if ('tokenId' in ends) return [...ids.keys()].filter((i) => ids[i] === ends.tokenId)
  const texts = encoder.tokenTexts(ids)
  const whole = texts.join('')
  const [start, end] = ownText(whole, response, encoder.tail)
  const found: number[] = []
  let token = 0
  let reached = texts[0]?.length ?? 0
  for (const match of whole.slice(start, end).matchAll(ends.pattern)) {
    const at = start + match.index + match[0].length
    // Nothing is before a match of no characters at the beginning.
    if (at === start) continue
    while (reached < at && token < texts.length - 1) reached += texts[++token]!.length
    if (found.at(-1) !== token) found.push(token)
  }
  return found
}

/** What of the text is the response's own, and not what the template writes around it. */
function ownText(whole: string, response: Text, tail: string): [start: number, end: number] {
  const messages = typeof response === 'string' ? [response] : response.map(contentText)
  if (messages.length === 1) {
    for (const content of [messages[0]!, messages[0]!.trim()]) {
      const start = whole.lastIndexOf(content)
      if (start >= 0) return [start, start + content.length]
    }
  }
  return [0, tail !== '' && whole.endsWith(tail) ? whole.length - tail.length : whole.length]
}

/** For messages. */
export function describeEnds(ends: StepEnds): string {
  return 'pattern' in ends ? `nothing in it matches ${String(ends.pattern)}` : `it has no token ${ends.name}`
}
