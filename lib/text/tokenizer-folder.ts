/**
 * The tokenizer of a checkpoint folder, of all its files: tokenizer.json, and the tokens that tokenizer_config.json adds.
 */
import { addConfigTokens } from './config-tokens.js'
import { parsePostProcessor, type Surroundings } from './post-processor.js'
import { readTextConfig, type TextConfig } from './template-source.js'
import { parseTokenizer, readTokenizerFile, type TokenizerSpec } from './tokenizer-json.js'

export interface TokenizerFolder {
  /** tokenizer.json. */
  file: string
  /** Its content. */
  text: string
  spec: TokenizerSpec
  config: TextConfig
  /** What the tokenizer puts around a plain text. Throws ERR_TOKENIZER_INVALID for a post-processor that is not known. */
  surroundings(): Surroundings
}

/** Errors: ERR_CHECKPOINT_NOT_FOUND, ERR_TOKENIZER_MISSING, ERR_TOKENIZER_INVALID, ERR_TEMPLATE_INVALID, ERR_IO. */
export async function readTokenizer(folder: string): Promise<TokenizerFolder> {
  const { file, text, json } = await readTokenizerFile(folder)
  const spec = parseTokenizer(json, file)
  const config = await readTextConfig(folder)
  addConfigTokens(spec, config.tokens, config.specialTokens)
  const surroundings = () => {
    const { ends } = config.tokens
    if (ends === undefined) return parsePostProcessor((json as Record<string, unknown>)['post_processor'], file)
    // Said outright, it takes the place of the post-processor, as in transformers.
    return {
      before: ends.bos ? idOf(spec, config.specialTokens['bos_token']) : [],
      after: ends.eos ? idOf(spec, config.specialTokens['eos_token']) : [],
    }
  }
  return { file, text, spec, config, surroundings }
}

function idOf(spec: TokenizerSpec, content: string | undefined): number[] {
  return spec.addedTokens.filter((token) => token.content === content).map(({ id }) => id)
}
