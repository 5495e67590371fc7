/**
 * The tokenizer of the base model in Hugging Face form: byte-level BPE trained on the corpus, each digit a token, "Yes" and "No" in the
 * vocabulary for the generative reward, and a chat template that marks each turn with one token for its role.
 */
import { byteAlphabet, byteLevelTokenizer } from '../../../lib/text/byte-level.js'
import { type Merge, trainMerges } from './bpe.js'
import type { Item } from './item.js'

const ROLES = ['system', 'user', 'assistant'] as const
export const SPECIAL_TOKENS = ['<|begin|>', '<|end|>', '<|pad|>', ...ROLES.map((role) => `<|${role}|>`)]
export const TOKEN_IDS = { bos_token_id: 0, eos_token_id: 1, pad_token_id: 2 } as const

const TEMPLATE =
  '{{ bos_token }}{% for message in messages %}' +
  "{% if message.role not in ['system', 'user', 'assistant'] %}" +
  "{{ raise_exception('the roles are system, user and assistant, not ' + message.role) }}{% endif %}" +
  "{{ '<|' + message.role + '|>' + message.content + eos_token }}{% endfor %}" +
  '{% if add_generation_prompt %}<|assistant|>{% endif %}'

/** A digit; a word, marks or a line's break with the space before it; white space. */
const PIECES = '\\p{N}| ?\\p{L}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+'
const FIRST: readonly Merge[] = [
  ['Y', 'e'],
  ['Ye', 's'],
  ['N', 'o'],
]

export interface TrainedTokenizer {
  /** Number of tokens; ids are 0 … size - 1. */
  size: number
  /** tokenizer.json and tokenizer_config.json by name. */
  files: Record<string, string>
}

/** @param limit most tokens; there are fewer where the corpus has nothing left to merge */
export function trainTokenizer(items: Iterable<Item>, limit: number, context: number): TrainedTokenizer {
  const merges = trainMerges(countPieces(items), limit - SPECIAL_TOKENS.length - 256, FIRST)
  const tokens = [...new Set([...SPECIAL_TOKENS, ...byteAlphabet(), ...merges.map((parts) => parts.join(''))])]
  const tokenizer = byteLevelTokenizer({ special: SPECIAL_TOKENS, tokens, merges, pieces: PIECES })
  const settings = {
    tokenizer_class: 'PreTrainedTokenizerFast',
    bos_token: SPECIAL_TOKENS[TOKEN_IDS.bos_token_id],
    eos_token: SPECIAL_TOKENS[TOKEN_IDS.eos_token_id],
    pad_token: SPECIAL_TOKENS[TOKEN_IDS.pad_token_id],
    model_max_length: context,
    clean_up_tokenization_spaces: false,
    chat_template: TEMPLATE,
  }
  return {
    size: tokens.length,
    files: {
      'tokenizer.json': `${JSON.stringify(tokenizer)}\n`,
      'tokenizer_config.json': `${JSON.stringify(settings, null, 2)}\n`,
    },
  }
}

function countPieces(items: Iterable<Item>): Map<string, number> {
  const pattern = new RegExp(PIECES, 'gu')
  const counts = new Map<string, number>()
  for (const { prompt, response } of items) {
    for (const text of [prompt, ...response.map(({ content }) => content)]) {
      for (const [piece] of text.matchAll(pattern)) counts.set(piece, (counts.get(piece) ?? 0) + 1)
    }
  }
  return counts
}
