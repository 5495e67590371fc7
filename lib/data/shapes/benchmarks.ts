/**
 * Shapes of benchmarks of reward models.
 */
import type { RowFields } from '../row-fields.js'
import type { Text } from '../rows.js'
import { ordered, type RowShape } from './shape.js'

export const benchmarkShapes: readonly RowShape[] = [
  {
    name: 'lists',
    keys: ['prompt', 'chosen', 'rejected'],
    fits: ({ chosen, rejected }) => isTextList(chosen) || isTextList(rejected),
    leaves: ['num_correct', 'num_incorrect', 'total_completions', 'additional_metadata', 'error_key', 'error'],
    meaning:
      'one prompt with lists of chosen and of rejected responses: a group, the chosen ones first; a pair where there is one of each',
    source: 'RewardBench 2, RM-Bench',
    read: (fields) => {
      const chosen = several('chosen', fields)
      const rejected = several('rejected', fields)
      const shape = chosen.length === 1 && rejected.length === 1 ? 'pair' : 'group'
      return { shape, prompt: fields.text('prompt'), responses: [...chosen, ...rejected] }
    },
  },
  {
    name: 'judgebench',
    keys: ['question', 'response_A', 'response_B', 'label'],
    leaves: ['pair_id', 'original_id', 'response_model'],
    meaning: 'two responses; `label` "A>B" or "B>A" says which is the chosen one',
    source: 'JudgeBench',
    read: (fields) => {
      const label = fields.string('label')
      const sign = label === 'A>B' ? 1 : label === 'B>A' ? -1 : 0
      const responses = ordered(fields.text('response_A'), fields.text('response_B'), sign, 'label', fields)
      return { shape: 'pair', prompt: fields.text('question'), responses }
    },
  },
]

function isTextList(value: unknown): boolean {
  return Array.isArray(value) && (typeof value[0] === 'string' || Array.isArray(value[0]))
}

/** The responses of one side: a list of them, or one alone. */
function several(key: string, fields: RowFields): Text[] {
  const value = fields.value(key)
  if (!isTextList(value)) return [fields.text(key)]
  return fields.list(key).map((response, i) => fields.textOf(response, `${key}[${i}]`))
}
