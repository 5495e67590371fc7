/**
 * The simplest tokenizer that works as a real one does: each byte of the text is a token, and so are four markers of a chat template and
 * the words "Yes" and "No", which the generative reward reads. In the files of Hugging Face.
 */

const MARKERS = ['<|begin|>', '<|end|>', '<|role|>', '<|text|>'] as const

const TEMPLATE =
  '{{ bos_token }}{% for message in messages %}<|role|>{{ message.role }}<|text|>{{ message.content | trim }}<|end|>{% endfor %}' +
  '{% if add_generation_prompt %}<|role|>assistant<|text|>{% endif %}'

export interface ByteTokenizer {
  /** Number of tokens. */
  size: number
  /** For config.json. */
  ids: { bos_token_id: number; eos_token_id: number }
  /** tokenizer.json, tokenizer_config.json and chat_template.jinja by name. */
  files: Record<string, string>
}

export function byteTokenizer(): ByteTokenizer {
  const merges = [
    ['Y', 'e'],
    ['Ye', 's'],
    ['N', 'o'],
  ]
  const tokens = [...MARKERS, ...byteAlphabet(), ...merges.map((parts) => parts.join(''))]
  const byteLevel = { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true }
  const tokenizer = {
    version: '1.0',
    added_tokens: MARKERS.map((content, id) => ({ id, content, special: true, ...PLAIN })),
    normalizer: null,
    pre_tokenizer: byteLevel,
    post_processor: null,
    decoder: byteLevel,
    model: { type: 'BPE', vocab: Object.fromEntries(tokens.map((token, id) => [token, id])), merges },
  }
  const settings = { tokenizer_class: 'PreTrainedTokenizerFast', bos_token: MARKERS[0], eos_token: MARKERS[1] }
  return {
    size: tokens.length,
    ids: { bos_token_id: 0, eos_token_id: 1 },
    files: {
      'tokenizer.json': `${JSON.stringify(tokenizer)}\n`,
      'tokenizer_config.json': `${JSON.stringify(settings, null, 2)}\n`,
      'chat_template.jinja': TEMPLATE,
    },
  }
}

const PLAIN = { single_word: false, lstrip: false, rstrip: false, normalized: false }

/** The printable character by which byte-level tokenizers write each byte: Latin-1's own where it has one, else from 256 on. */
function byteAlphabet(): string[] {
  let next = 256
  return Array.from({ length: 256 }, (_, byte) => {
    const printable = (byte >= 33 && byte <= 126) || (byte >= 161 && byte !== 173)
    return String.fromCodePoint(printable ? byte : next++)
  })
}
