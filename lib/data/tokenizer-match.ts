/**
 * Do two checkpoints turn text into the same ids? An implicit reward compares two models' probabilities of the same tokens.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import { ImplexError } from '../core/errors.js'

/**
 * Undefined when the tokenizers are the same, else what differs. A second checkpoint without a tokenizer has nothing to contradict.
 * Only what decides ids counts: padding, truncation, post-processing and decoding may differ (saving a model changes them).
 */
export async function compareTokenizers(path: string, otherPath: string): Promise<string | undefined> {
  const [bytes, otherBytes] = await Promise.all([read(path), read(otherPath)])
  if (bytes === undefined || otherBytes === undefined || bytes.equals(otherBytes)) return undefined
  const [a, b] = [parse(bytes, path), parse(otherBytes, otherPath)]
  for (const part of ['vocab', 'merges', 'addedTokens', 'normalizer', 'preTokenizer'] as const) {
    if (!isDeepStrictEqual(a[part], b[part])) return part
  }
  return undefined
}

async function read(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(join(path, 'tokenizer.json'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw new ImplexError('ERR_IO', `cannot read ${join(path, 'tokenizer.json')}: ${(error as Error).message}`, {
      cause: error,
    })
  }
}

interface TokenizerJson {
  model?: { vocab?: unknown; merges?: unknown } | null
  added_tokens?: { id: number; content: string }[] | null
  normalizer?: unknown
  pre_tokenizer?: unknown
}

function parse(bytes: Buffer, path: string) {
  try {
    const json = JSON.parse(bytes.toString('utf8')) as TokenizerJson
    const merges = json.model?.merges
    return {
      vocab: json.model?.vocab,
      // "a b" in older files, ["a", "b"] in newer ones
      merges: Array.isArray(merges)
        ? merges.map((merge: unknown) => (Array.isArray(merge) ? merge.join(' ') : merge))
        : merges,
      addedTokens: json.added_tokens?.map(({ id, content }) => [id, content]),
      normalizer: json.normalizer,
      preTokenizer: json.pre_tokenizer,
    }
  } catch (error) {
    throw new ImplexError('ERR_TOKENIZER_INVALID', `${join(path, 'tokenizer.json')}: ${(error as Error).message}`, {
      cause: error,
      path,
    })
  }
}
