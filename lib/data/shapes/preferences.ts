/**
 * Shapes in which data sets of preferences are published.
 */
import { isPlainObject } from '../../core/arguments.js'
import type { RowFields } from '../row-fields.js'
import type { Text } from '../rows.js'
import { dialogue, extraIdTurns, humanAssistantTurns } from './dialogue.js'
import { assistant, ordered, type RowShape } from './shape.js'

export const preferenceShapes: readonly RowShape[] = [
  {
    name: 'hh-rlhf',
    keys: ['chosen', 'rejected'],
    without: ['prompt', 'question', 'input', 'instruction', 'conversations', 'messages'],
    fits: ({ chosen, rejected }) => typeof chosen === 'string' && typeof rejected === 'string',
    meaning:
      'two dialogues as texts, their turns marked "\\n\\nHuman:" and "\\n\\nAssistant:"; each becomes a message without the white space around it, the last one is the response',
    source: 'Anthropic hh-rlhf',
    read: (fields) => ({ shape: 'pair', responses: [dialogue('chosen', fields), dialogue('rejected', fields)] }),
  },
  {
    name: 'hh-rlhf-prompt',
    keys: ['prompt', 'chosen', 'rejected'],
    // Such a prompt may as well be meant as it is: to be so read it must be named.
    fits: () => false,
    leaves: ['response'],
    meaning:
      "as hh-rlhf, with the prompt apart and two texts as responses; only by name, for `auto` takes such a row as a pair with this text as the user's turn",
    source: 'full-hh-rlhf',
    read: (fields) => {
      const prompt = humanAssistantTurns(fields.string('prompt'), true)
      if (prompt === undefined) throw fields.fail('"prompt" is no dialogue that begins with "\\n\\nHuman:"')
      const responses = [fields.string('chosen'), fields.string('rejected')].map((text) => [assistant(text.trim())])
      return { shape: 'pair', prompt, responses }
    },
  },
  {
    name: 'helpsteer2',
    keys: ['prompt', 'response_1', 'response_2', 'preference_strength'],
    leaves: [
      'preference_statement',
      'preference_elaboration',
      'three_most_similar_preferences',
      'all_preferences_unprocessed',
    ],
    meaning:
      'two responses; below 0 `preference_strength` says that the first is better. `<extra_id_1>User` and `<extra_id_1>Assistant` begin turns of the prompt',
    source: 'HelpSteer2-Preference',
    read: (fields) => {
      const sign = -fields.number('preference_strength')
      const responses = ordered(
        fields.text('response_1'),
        fields.text('response_2'),
        sign,
        'preference_strength',
        fields,
      )
      return { shape: 'pair', prompt: extraIdTurns(fields.string('prompt')), responses }
    },
  },
  {
    name: 'helpsteer3',
    keys: ['context', 'response1', 'response2', 'overall_preference'],
    leaves: ['individual_preference'],
    meaning: 'two responses; below 0 `overall_preference` says that the first is better',
    source: 'HelpSteer3-Preference',
    read: (fields) => {
      const sign = -fields.number('overall_preference')
      const responses = ordered(fields.text('response1'), fields.text('response2'), sign, 'overall_preference', fields)
      return { shape: 'pair', prompt: fields.text('context'), responses }
    },
  },
  {
    name: 'shp',
    keys: ['history', 'human_ref_A', 'human_ref_B', 'labels'],
    leaves: [
      'post_id',
      'upvote_ratio',
      'c_root_id_A',
      'c_root_id_B',
      'created_at_utc_A',
      'created_at_utc_B',
      'score_A',
      'score_B',
      'seconds_difference',
      'score_ratio',
    ],
    meaning: 'two responses; `labels` 1 says that A is the chosen one, 0 that B is',
    source: 'Stanford Human Preferences (SHP)',
    read: (fields) => {
      const better = choiceOf('labels', fields)
      const responses = [fields.text('human_ref_A'), fields.text('human_ref_B')]
      return {
        shape: 'pair',
        prompt: fields.text('history'),
        responses: better === 1 ? responses : responses.reverse(),
      }
    },
  },
  {
    name: 'pku-saferlhf',
    keys: ['prompt', 'response_0', 'response_1', 'better_response_id'],
    leaves: [
      'safer_response_id',
      'prompt_source',
      'response_0_source',
      'response_1_source',
      'is_response_0_safe',
      'is_response_1_safe',
      'response_0_harm_category',
      'response_1_harm_category',
      'response_0_severity_level',
      'response_1_severity_level',
      'response_0_sha256',
      'response_1_sha256',
    ],
    meaning: 'two responses; `better_response_id` 0 or 1 says which is the chosen one',
    source: 'PKU-SafeRLHF',
    read: (fields) => {
      const better = choiceOf('better_response_id', fields)
      const responses = [fields.text('response_0'), fields.text('response_1')]
      return { shape: 'pair', prompt: fields.text('prompt'), responses: better === 0 ? responses : responses.reverse() }
    },
  },
  {
    name: 'nectar',
    keys: ['prompt', 'answers'],
    leaves: ['num_responses', 'good_natured'],
    meaning:
      'a group of answers in the order of the file; a prompt with turns marked "\\n\\nHuman:" and "\\n\\nAssistant:" becomes messages',
    source: 'Nectar',
    read: (fields) => {
      const prompt = fields.string('prompt')
      return {
        shape: 'group',
        prompt: humanAssistantTurns(prompt, true) ?? prompt,
        responses: answersOf('answers', 'answer', fields),
      }
    },
  },
  {
    name: 'ultrafeedback',
    keys: ['instruction', 'completions'],
    leaves: ['correct_answers', 'incorrect_answers'],
    meaning: 'a group: the `response` of each of `completions`, in the order of the file',
    source: 'UltraFeedback',
    read: (fields) => ({
      shape: 'group',
      prompt: fields.text('instruction'),
      responses: answersOf('completions', 'response', fields),
    }),
  },
  {
    name: 'argilla',
    keys: ['instruction', 'chosen_response', 'rejected_response'],
    meaning: 'a preference pair',
    source: "Argilla's ultrafeedback-binarized-preferences",
    read: (fields) => pairOf('instruction', 'chosen_response', 'rejected_response', fields),
  },
  {
    name: 'orca',
    keys: ['question', 'chosen', 'rejected'],
    without: ['prompt'],
    fits: ({ chosen, rejected }) => typeof chosen === 'string' && typeof rejected === 'string',
    meaning: 'a preference pair',
    source: 'orca_dpo_pairs',
    read: (fields) => pairOf('question', 'chosen', 'rejected', fields),
  },
  {
    name: 'distilabel-orca',
    keys: ['input', 'chosen', 'rejected'],
    without: ['prompt', 'question', 'instruction'],
    fits: ({ chosen, rejected }) => typeof chosen === 'string' && typeof rejected === 'string',
    leaves: [
      'generations',
      'order',
      'labelling_model',
      'labelling_prompt',
      'raw_labelling_response',
      'rationale',
      'status',
      'original_chosen',
      'original_rejected',
      'in_gsm8k_train',
    ],
    meaning: 'a preference pair',
    source: "Argilla's distilabel-intel-orca-dpo-pairs",
    read: (fields) => pairOf('input', 'chosen', 'rejected', fields),
  },
]

function pairOf(prompt: string, chosen: string, rejected: string, fields: RowFields) {
  const responses = [fields.text(chosen), fields.text(rejected)]
  return { shape: 'pair', prompt: fields.text(prompt), responses } as const
}

/** A number that is 0 or 1. */
function choiceOf(key: string, fields: RowFields): number {
  const number = fields.number(key)
  if (number === 0 || number === 1) return number
  throw fields.fail(`"${key}" must be 0 or 1, not ${number}`)
}

/** A list of objects with a text under `name`, or one object with a list there, as older tables write it. */
function answersOf(key: string, name: string, fields: RowFields): Text[] {
  const value = fields.value(key)
  const columns = isPlainObject(value) && Array.isArray(value[name]) ? (value[name] as unknown[]) : undefined
  const answers = columns ?? fields.list(key).map((one) => (isPlainObject(one) ? one[name] : one))
  if (answers.length === 0) throw fields.fail(`"${key}" must hold at least one answer`)
  return answers.map((answer, i) => fields.textOf(answer, `${key}[${i}].${name}`))
}
