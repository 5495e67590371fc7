/** What the text tests share: the reference ids of fixtures/text, small tokenizers from there, and checkpoint folders made of them. */
import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as assert from 'uvu/assert'
import { ImplexError, type ImplexErrorCode } from '../../lib/core/errors.js'
import type { Message } from '../../lib/text/messages.js'
import { repositoryRoot } from './shared.js'
import { temporaryFolder } from './tmp.js'

/** A tokenizer.json, loosely: tests take it apart and break it. */
export interface TokenizerJson {
  model: { vocab: Record<string, number>; merges: unknown[]; [field: string]: unknown }
  added_tokens: { id: number; content: string; [flag: string]: unknown }[]
  [field: string]: unknown
}

/** See fixtures/text/make_expected.py. */
export interface Expected {
  texts: (string | { repeat: [string, number] })[]
  tokenizers: Record<string, TokenizerJson>
  cases: { name: string; base: string; patch: Partial<TokenizerJson>; ids: string[] }[]
  templates: Record<string, string>
  renderings: { template: string; messages: Message[]; add_generation_prompt: boolean; text: string | null }[]
}

export const expected = JSON.parse(
  readFileSync(join(repositoryRoot, 'test/fixtures/text/expected.json'), 'utf8'),
) as Expected

export const texts = expected.texts.map((text) =>
  typeof text === 'string' ? text : text.repeat[0].repeat(text.repeat[1]),
)

export function patched(base: TokenizerJson, patch: Partial<TokenizerJson>): TokenizerJson {
  return { ...base, ...patch, model: { ...base.model, ...patch.model } } as TokenizerJson
}

/** Ids as the fixture writes them. */
export function written(ids: number[]): string {
  const text = ids.join(' ')
  return ids.length <= 10 ? text : `#${createHash('sha256').update(text).digest('hex').slice(0, 16)}:${ids.length}`
}

/** A copy of the byte-level tokenizer: `<|bos|>` 0, `<|end|>` 1, `<|role|>` 2. */
export function byteTokenizer(): TokenizerJson {
  return structuredClone(expected.tokenizers['bytes'] as TokenizerJson)
}

/** A copy of the SentencePiece-like tokenizer: `<unk>` 0, `<s>` 1, `</s>` 2, byte fallback. */
export function pieceTokenizer(): TokenizerJson {
  return structuredClone(expected.tokenizers['sentencepiece'] as TokenizerJson)
}

let root: string | undefined

/** Writes a folder of the given files (objects as JSON); returns its path. */
export function folderOf(files: Record<string, unknown>): string {
  root ??= temporaryFolder()
  const folder = mkdtempSync(join(root, 'folder-'))
  for (const [name, content] of Object.entries(files)) {
    writeFileSync(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content))
  }
  return folder
}

/** Asserts that `action` fails with an ImplexError of this code whose message has all of `parts`. */
export async function fails(action: () => unknown, code: ImplexErrorCode, ...parts: string[]): Promise<void> {
  let error: unknown
  try {
    await action()
  } catch (caught) {
    error = caught
  }
  assert.instance(error, ImplexError)
  const { code: actual, message } = error as ImplexError
  assert.is(actual, code, message)
  for (const part of parts)
    assert.ok(message.includes(part), `${JSON.stringify(message)} has no ${JSON.stringify(part)}`)
}
