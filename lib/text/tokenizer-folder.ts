/**
 * The tokenizer of a checkpoint folder, of all its files: tokenizer.json, and the tokens that tokenizer_config.json adds.
 */
import path from 'node:path'
import { isFolder } from '../core/files.js'
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

/**
 * Errors: ERR_CHECKPOINT_NOT_FOUND, ERR_TOKENIZER_MISSING, ERR_TOKENIZER_INVALID, ERR_TEMPLATE_INVALID, ERR_IO.
 * @param adapter folder whose own files take the place of the checkpoint's: see textFolders
 */
export async function readTokenizer(folder: string, adapter?: string): Promise<TokenizerFolder> {
  const folders = adapter === undefined ? { tokenizer: folder, config: folder } : await textFolders(folder, adapter)
  const { file, text, json } = await readTokenizerFile(folders.tokenizer)
  const spec = parseTokenizer(json, file)
  const config = await readTextConfig(folders.config)
  if (adapter !== undefined)
    config.template = (await readTextConfig(adapter)).template ?? (await readTextConfig(folder)).template
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

export interface TextFolders {
  /** Where tokenizer.json is. */
  tokenizer: string
  /** Where tokenizer_config.json and what belongs to it is. */
  config: string
}

/** Where the text of a base model with an adapter lies: each file of the adapter's own counts. A template counts by itself. */
export async function textFolders(base: string, adapter: string): Promise<TextFolders> {
  const has = async (name: string) => (await isFolder(path.join(adapter, name))) === false
  const tokenizer = (await has('tokenizer.json')) ? adapter : base
  const own = tokenizer === adapter || (await has('tokenizer_config.json'))
  return { tokenizer, config: own ? adapter : base }
}

function idOf(spec: TokenizerSpec, content: string | undefined): number[] {
  return spec.addedTokens.filter((token) => token.content === content).map(({ id }) => id)
}
