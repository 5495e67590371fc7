/**
 * The shapes that implex and TRL have in common: pairs, conversations with an implicit prompt, groups, prompt and completion.
 */
import { describe } from '../../core/arguments.js'
import type { RowShape } from './shape.js'
import { isListOf } from './shape.js'

export const plainShapes: readonly RowShape[] = [
  {
    name: 'pair',
    keys: ['prompt', 'chosen', 'rejected'],
    fits: ({ chosen, rejected }) => !isList(chosen) && !isList(rejected),
    // UltraFeedback binarized repeats the chosen conversation there.
    leaves: ['messages'],
    meaning: 'a preference pair',
    source: 'TRL; RewardBench, ultrafeedback_binarized, Skywork-Reward-Preference and most others',
    read: (fields) => ({
      shape: 'pair',
      prompt: fields.text('prompt'),
      responses: [fields.text('chosen'), fields.text('rejected')],
    }),
  },
  {
    name: 'group',
    keys: ['prompt', 'responses'],
    meaning: 'one prompt with one or more responses',
    source: 'implex',
    read: (fields) => ({
      shape: 'group',
      prompt: fields.text('prompt'),
      responses: fields.list('responses').map((response, i) => fields.textOf(response, `responses[${i}]`)),
    }),
  },
  {
    name: 'implicit',
    keys: ['chosen', 'rejected'],
    without: ['prompt'],
    fits: ({ chosen, rejected }) => isListOf(chosen, 'object') && isListOf(rejected, 'object'),
    meaning: 'a preference pair of two whole conversations; their common beginning is the prompt',
    source: 'TRL; dpo-mix-7k',
    read: (fields) => ({ shape: 'pair', responses: [fields.messages('chosen'), fields.messages('rejected')] }),
  },
  {
    name: 'completion',
    keys: ['prompt', 'completion'],
    leaves: ['label'],
    meaning: 'one prompt with one response',
    source: 'TRL (prompt-completion and unpaired preference)',
    read: (fields) => ({ shape: 'group', prompt: fields.text('prompt'), responses: [fields.text('completion')] }),
  },
  {
    name: 'stepwise',
    keys: ['prompt', 'completions'],
    without: ['instruction'],
    fits: ({ completions }) => isListOf(completions, 'string'),
    leaves: ['labels'],
    meaning:
      'one prompt with one response as a list of its steps; with `--steps` each is followed by the token that ends a step, else by a line feed',
    source: 'TRL (stepwise supervision): math_shepherd, prm800k',
    read: (fields) => {
      const steps = fields.list('completions').map((step, i) => {
        if (typeof step === 'string') return fields.unicode(step, `completions[${i}]`)
        throw fields.fail(`"completions[${i}]" must be a string, a step of the response, not ${describe(step)}`)
      })
      return {
        shape: 'group',
        prompt: fields.text('prompt'),
        responses: [steps.map((one) => `${one}\n`).join('')],
        steps,
      }
    },
  },
]

/** Of texts or of conversations, and not of messages. */
function isList(value: unknown): boolean {
  return Array.isArray(value) && (typeof value[0] === 'string' || Array.isArray(value[0]))
}
