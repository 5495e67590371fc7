/**
 * Finds the template that renders a checkpoint's conversations, and the special tokens that it may name.
 */
import path from 'node:path'
import { ImplexError } from '../core/errors.js'
import { describe, isPlainObject } from '../core/arguments.js'
import { readIfPresent, readJsonIfPresent } from '../core/files.js'
import { type ConfigTokens, readConfigTokens } from './config-tokens.js'

/** A template's text, and its origin for messages. */
export interface TemplateText {
  text: string
  origin: string
}

/** What the checkpoint's folder says about text, apart from tokenizer.json. */
export interface TextConfig {
  /** From chat_template.jinja, otherwise from chat_template in tokenizer_config.json; absent if there is neither. */
  template?: TemplateText
  /** bos_token, eos_token, unk_token, pad_token, sep_token, cls_token, mask_token: those that are set. */
  specialTokens: Record<string, string>
  /** Further tokens. */
  tokens: ConfigTokens
}

const SPECIAL_TOKENS = ['bos_token', 'eos_token', 'unk_token', 'sep_token', 'pad_token', 'cls_token', 'mask_token']

/** Both files may be absent. Errors: ERR_TOKENIZER_INVALID (not JSON, wrong types), ERR_TEMPLATE_INVALID (no template to choose). */
export async function readTextConfig(folder: string): Promise<TextConfig> {
  const file = path.join(folder, 'tokenizer_config.json')
  const config = (await readJsonIfPresent(file, 'ERR_TOKENIZER_INVALID')) ?? {}
  const older = (await readJsonIfPresent(path.join(folder, 'special_tokens_map.json'), 'ERR_TOKENIZER_INVALID')) ?? {}
  const specialTokens: Record<string, string> = {}
  for (const name of SPECIAL_TOKENS) {
    // A null in tokenizer_config.json says "none"; only a name that it lacks is looked up in the older file.
    const token = specialToken(Object.hasOwn(config, name) ? config[name] : older[name], name, file)
    if (token !== undefined) specialTokens[name] = token
  }
  const jinja = path.join(folder, 'chat_template.jinja')
  const text = await readIfPresent(jinja)
  const template = text === undefined ? configTemplate(config['chat_template'], file) : { text, origin: jinja }
  return { specialTokens, tokens: readConfigTokens(config, older, file), template }
}

/** Reads a template that the user names. @throws ImplexError ERR_TEMPLATE_INVALID if it cannot be read */
export async function readTemplateFile(file: string): Promise<TemplateText> {
  const text = await readIfPresent(file)
  if (text === undefined) {
    throw new ImplexError(
      'ERR_TEMPLATE_INVALID',
      `no chat template file ${file}; give a .jinja file, or one of "auto", "default", "none"`,
      { path: file },
    )
  }
  return { text, origin: file }
}

function configTemplate(value: unknown, file: string): TemplateText | undefined {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string') return { text: value, origin: `of ${file}` }
  const invalid = (what: string): ImplexError =>
    new ImplexError('ERR_TEMPLATE_INVALID', `${file}: chat_template ${what}`, { path: file })
  if (!Array.isArray(value)) throw invalid(`must be a string or a list of {name, template}; got ${describe(value)}`)
  const templates = new Map<string, string>()
  for (const entry of value as unknown[]) {
    if (!isPlainObject(entry) || typeof entry['name'] !== 'string' || typeof entry['template'] !== 'string') {
      throw invalid(`must list {name, template}, both strings; got ${describe(entry)}`)
    }
    templates.set(entry['name'], entry['template'])
  }
  const text = templates.get('default')
  if (text === undefined) {
    const names = [...templates.keys()].map((name) => `"${name}"`).join(', ')
    throw invalid(
      `has no template named "default" (has: ${names || 'none'}); save the one you want as a file and give that file`,
    )
  }
  return { text, origin: `"default" of ${file}` }
}

function specialToken(value: unknown, name: string, file: string): string | undefined {
  if (value === undefined || value === null) return undefined
  const content = isPlainObject(value) ? value['content'] : value
  if (typeof content === 'string') return content
  throw new ImplexError(
    'ERR_TOKENIZER_INVALID',
    `${file}: ${name} must be a string or {content}; got ${describe(value)}`,
    {
      path: file,
    },
  )
}
