/**
 * The config and the text files of a base model with an adapter merged into it: the base's, but for what the adapter's folder has itself and
 * what its head and its embeddings ask for.
 */
import { join } from 'node:path'
import { type Checkpoint, familyOf } from '../checkpoint/checkpoint.js'
import { Config } from '../checkpoint/config.js'
import { isPlainObject } from '../core/arguments.js'
import { readIfPresent, readJsonFile } from '../core/files.js'
import { readTextConfig } from '../text/template-source.js'
import { readTokenizer, textFolders } from '../text/tokenizer-folder.js'

/** config.json. @param padTokenId that of the adapter's own tokenizer */
export async function mergedConfig(
  base: Checkpoint,
  { spec, heads, adapter }: Checkpoint,
  padTokenId: number | undefined,
): Promise<Record<string, unknown>> {
  const file = join(base.path, 'config.json')
  const config = await readJsonFile(file, 'ERR_CONFIG_INVALID')
  // In a vision-language model the numbers of the text part lie in a config of their own.
  const inner = isPlainObject(config.text_config) ? config.text_config : config
  if (spec.vocabSize !== base.spec.vocabSize) inner.vocab_size = spec.vocabSize
  if (spec.tiedEmbedding !== base.spec.tiedEmbedding) {
    config.tie_word_embeddings = spec.tiedEmbedding
    if (inner !== config) inner.tie_word_embeddings = spec.tiedEmbedding
  }
  if (padTokenId !== undefined) config.pad_token_id = padTokenId
  const [head] = heads
  if (head === undefined || adapter?.settings.taskType !== 'SEQ_CLS' || head.form.layers[0] !== 'score') return config
  if (inner === config) {
    const { causal, classifier = causal } = familyOf(await Config.read(file)).family.classes
    config.architectures = [`${classifier}ForSequenceClassification`]
  }
  const labels = Array.from({ length: head.outputs }, (_, i) => `LABEL_${i}`)
  config.num_labels = head.outputs
  config.id2label = Object.fromEntries(labels.entries())
  config.label2id = Object.fromEntries(labels.map((label, i) => [label, i]))
  return config
}

export interface MergedText {
  /** By file name. */
  files: Record<string, string>
  /** Of the adapter's own tokenizer. */
  padTokenId?: number
}

/** @throws ImplexError ERR_TOKENIZER_INVALID, ERR_TEMPLATE_INVALID, ERR_IO */
export async function mergedText(base: string, adapter: string, headed: boolean): Promise<MergedText> {
  const folders = await textFolders(base, adapter)
  const files: Record<string, string> = {}
  const copy = async (folder: string, name: string) => {
    const text = await readIfPresent(join(folder, name))
    if (text !== undefined) files[name] = text
  }
  await copy(folders.tokenizer, 'tokenizer.json')
  for (const name of ['tokenizer_config.json', 'special_tokens_map.json', 'added_tokens.json'])
    await copy(folders.config, name)
  await copy(folders.config, 'chat_template.jinja')
  // A language model's settings of generation.
  if (!headed) await copy(base, 'generation_config.json')
  if (files['tokenizer.json'] === undefined) return { files }
  const { spec, config } = await readTokenizer(base, adapter)
  const template = config.template?.text
  if (template !== undefined && template !== (await readTextConfig(folders.config)).template?.text)
    files['chat_template.jinja'] = template
  const pad = folders.config === adapter ? config.specialTokens.pad_token : undefined
  const id =
    spec.addedTokens.find(({ content }) => content === pad)?.id ??
    (pad === undefined ? undefined : spec.model.vocab[pad])
  return id === undefined ? { files } : { files, padTokenId: id }
}
