/**
 * Checkpoints of vision-language models whose text model is of a family that implex reads: the text part is opened as if it were alone.
 * A new one is one entry in WRAPPERS.
 */
import { Config } from './config.js'
import type { Family } from './families.js'
import { isPlainObject } from '../core/arguments.js'

/** By `model_type`, that of the text part in a config that leaves it out. Text without an image goes through the text part alone. */
export const WRAPPERS: ReadonlyMap<string, string> = new Map([
  ['gemma3', 'gemma3_text'],
  ['mistral3', 'mistral'],
  ['llava', 'llama'],
  ['llava_next', 'llama'],
  ['llava_onevision', 'qwen2'],
  ['internvl', 'qwen2'],
])

/** Keys that count for the text as well where the outer config has them. */
const OUTER = [
  ...['architectures', 'tie_word_embeddings', 'pad_token_id', 'eos_token_id', 'bos_token_id', 'torch_dtype', 'dtype'],
  ...[
    'id2label',
    'label2id',
    'num_labels',
    'value_head_prefix',
    'implex',
    'quantization_config',
    'transformers_version',
  ],
]

/** The config of the text part, or undefined where `values` is not that of a known vision-language model. */
export function textValues(values: Record<string, unknown>): Record<string, unknown> | undefined {
  const { model_type: type, text_config: text } = values
  const fallback = typeof type === 'string' ? WRAPPERS.get(type) : undefined
  if (fallback === undefined || (text !== undefined && !isPlainObject(text))) return undefined
  const outer = OUTER.filter((key) => values[key] !== undefined && values[key] !== null)
  return { model_type: fallback, ...text, ...Object.fromEntries(outer.map((key) => [key, values[key]])) }
}

/** The config that counts for the text: that of the text part in a vision-language model. */
export function textConfig(config: Config): Config {
  const text = textValues(config.values)
  return text === undefined ? config : new Config(config.file, text, 'text_config.')
}

/** The family with the names that its tensors have inside such a checkpoint, by versions 5 and 4 of transformers. */
export function wrapped(family: Family): Family {
  return {
    ...family,
    otherPrefixes: ['model.language_model.', 'language_model.model.', 'language_model.'],
    unembedding: [...family.unembedding, ...family.unembedding.map((name) => `language_model.${name}`)],
  }
}
