/**
 * A copy of a checkpoint with tokens added to its vocabulary, so that a policy and its reference begin with the same rows for them.
 *
 * New rows are drawn as transformers does by default when it resizes embeddings (mean resizing): from a normal distribution around the mean
 * of the rows there are, with 1e-9 of their covariance. Ids for which the embedding has rows already (many are padded) keep these.
 */
import { join } from 'node:path'
import { openCheckpoint } from '../../lib/checkpoint/checkpoint.js'
import { readIfPresent, readJsonFile, readJsonIfPresent } from '../../lib/core/files.js'
import { readWeight } from '../../lib/checkpoint/weights.js'
import { type NamedTensor, writeCheckpoint } from '../../lib/checkpoint/write.js'
import { checkInteger, checkString, invalidArgument, isPlainObject } from '../../lib/core/arguments.js'
import { parseTokenizer, readTokenizerFile } from '../../lib/text/tokenizer-json.js'
import { Tokenizer } from '../../lib/text/tokenizer.js'
import { Random, STREAMS } from '../../lib/core/random.js'

const VARIANCE = 1e-9
const FLAGS = { single_word: false, lstrip: false, rstrip: false, normalized: false, special: false }
const COPIED = ['chat_template.jinja', 'special_tokens_map.json', 'generation_config.json']

/**
 * Writes `folder`, all or nothing, in Hugging Face form; tokens that the vocabulary has already are left as they are.
 * @throws TypeError, RangeError for wrong arguments
 * @throws ImplexError as openCheckpoint does, and ERR_IO when the folder exists, ERR_DISK_FULL
 */
export async function withAddedTokens(
  model: string,
  tokens: readonly string[],
  folder: string,
  options: { seed?: number } = {},
): Promise<void> {
  const { seed = 0 } = options
  if (!Array.isArray(tokens)) throw invalidArgument('tokens', 'a list of strings', tokens)
  for (const [i, token] of tokens.entries()) {
    checkString(`tokens[${i}]`, token)
    if (token === '') throw invalidArgument(`tokens[${i}]`, 'a string that is not empty', token)
  }
  checkString('folder', folder)
  checkInteger('seed', seed, 0)
  const { path, spec } = await openCheckpoint(model)
  const { file, json } = await readTokenizerFile(path)
  const tokenizer = new Tokenizer(parseTokenizer(json, file), file)
  const missing = [...new Set(tokens)].filter((token) => tokenizer.tokenId(token) === undefined)
  const added = missing.map((content, i) => ({ id: tokenizer.size + i, content, ...FLAGS }))
  const rows = Math.max(spec.vocabSize, tokenizer.size + added.length)

  const text = json as { added_tokens?: unknown[] }
  text.added_tokens = [...(text.added_tokens ?? []), ...added]
  const config = await readJsonFile(join(path, 'config.json'), 'ERR_CONFIG_INVALID')
  const files: Record<string, string> = { 'tokenizer.json': `${JSON.stringify(text)}\n` }
  for (const name of COPIED) {
    const content = await readIfPresent(join(path, name))
    if (content !== undefined) files[name] = content
  }
  const settings = await readJsonIfPresent(join(path, 'tokenizer_config.json'), 'ERR_TOKENIZER_INVALID')
  if (settings !== undefined) files['tokenizer_config.json'] = withDecoder(settings, added)
  const random = Random.seeded(seed, STREAMS.rows)
  const tensors: NamedTensor[] = []
  for (const weight of new Map(spec.weights.map((one) => [one.tensor, one])).values()) {
    const table = weight.role === 'embedding' || weight.role === 'unembedding'
    const stored = await readWeight(weight)
    const data = table ? withRows(stored, spec.hiddenSize, rows - spec.vocabSize, random) : stored
    const shape = table ? [rows, spec.hiddenSize] : [...weight.shape]
    tensors.push({ name: weight.tensor, shape, data, dtype: weight.dtype })
  }
  await writeCheckpoint(folder, { config: { ...config, vocab_size: rows }, tensors, files })
}

function withRows(table: Float32Array, columns: number, count: number, random: Random): Float32Array {
  const rows = table.length / columns
  const mean = new Float64Array(columns)
  for (let i = 0; i < table.length; i++) mean[i % columns]! += table[i]! / rows
  const grown = new Float32Array(table.length + count * columns)
  grown.set(table)
  for (let n = 0; n < count; n++) {
    // A sum of the centered rows with normal weights has their covariance, times their number.
    const row = mean.slice()
    for (let r = 0; r < rows; r++) {
      const weight = random.normal() * Math.sqrt(VARIANCE / rows)
      for (let c = 0; c < columns; c++) row[c]! += weight * (table[r * columns + c]! - mean[c]!)
    }
    grown.set(row, table.length + n * columns)
  }
  return grown
}

/** Older tokenizers list their added tokens here too, and transformers then believes this list. */
function withDecoder(json: Record<string, unknown>, added: readonly { id: number; content: string }[]): string {
  const { added_tokens_decoder: decoder } = json
  if (isPlainObject(decoder)) {
    for (const { id, content } of added) decoder[String(id)] = { content, ...FLAGS }
  }
  return `${JSON.stringify(json, null, 2)}\n`
}
