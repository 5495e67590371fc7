/**
 * At which token the head of an explicit reward is read.
 *
 * transformers, and TRL with it, reads a classifier at the last token of the sequence that is not `pad_token_id`. Where the padding is the
 * token that ends a response, that is the token before it: so TRL saves the models of every tokenizer without a padding token of its own.
 * A head that was trained at one token means nothing at another, so a head is read where its checkpoint says, and a head whose place no
 * checkpoint tells is refused where the two places differ.
 */
import { existsSync } from 'node:fs'
import { dirname, join, resolve } from 'node:path'
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { Config } from '../checkpoint/config.js'
import { textConfig } from '../checkpoint/wrapper.js'
import { ImplexError } from '../core/errors.js'
import { isFolder } from '../core/files.js'
import type { HeadReadAt } from '../checkpoint/heads.js'

/** `last`: the last token. `last-non-pad`: the last one that is not the padding token. */
export const HEAD_PLACES = ['last', 'last-non-pad'] as const
export type HeadPlaceName = (typeof HEAD_PLACES)[number]

/** For scoring also at a token: `token:TOKEN` is the last one of its kind in the response, `append:TOKEN` one that is put at the end. */
export type HeadPlaceOption = HeadPlaceName | `token:${string}` | `append:${string}`
export const HEAD_AT = /^(?:last|last-non-pad|(?:token|append):.+)$/s

export interface HeadPlace {
  headAt: HeadPlaceName
  /** With `last-non-pad`: the padding token. */
  padTokenId?: number
}

/** What the text side knows: see RowEncoder. */
export interface TextTokens {
  padTokenId?: number
  terminator?: number
}

/**
 * @param head 'own': the checkpoint's; 'new': one that is yet to be trained; else where it was read from, undefined for numbers in memory
 * @param readAt of an own head that is not the one that the checkpoint itself tells
 * @throws ImplexError ERR_CONFIG_INVALID when a trained head's place cannot be told
 */
export async function headPlace(
  wanted: HeadPlaceName | undefined,
  checkpoint: Pick<Checkpoint, 'path' | 'padTokenId' | 'heads'>,
  text: TextTokens,
  head: 'own' | 'new' | { file?: string },
  readAt: HeadReadAt | undefined = checkpoint.heads[0]?.readAt,
): Promise<HeadPlace> {
  const pad = checkpoint.padTokenId ?? text.padTokenId
  if (wanted !== undefined) return placeOf(wanted, pad, text)
  if (head === 'new' || (head === 'own' && readAt === 'last')) return { headAt: 'last' }
  const told = head === 'own' ? checkpoint.padTokenId : await padBeside(head.file)
  if (told !== undefined) return placeOf('last-non-pad', told, text)
  if (pad === undefined || pad !== text.terminator) return { headAt: 'last' }
  const why =
    head === 'own'
      ? `its config.json names no pad_token_id, and its tokenizer pads with token ${pad}, which also ends a response`
      : `the head has no config.json beside it, and the model pads with token ${pad}, which also ends a response`
  throw new ImplexError(
    'ERR_CONFIG_INVALID',
    `${checkpoint.path}: ${why}, so the head may have been trained at that token or at the one before it; say which with headAt ` +
      '(--head-at): "last" is the token that ends the response, "last-non-pad" the one before it, where TRL and transformers read then',
    { path: checkpoint.path },
  )
}

/** A conversation that ends with another token than the padding has none at its end: both places are one. */
function placeOf(headAt: HeadPlaceName, padTokenId: number | undefined, { terminator }: TextTokens): HeadPlace {
  const one = padTokenId === undefined || (terminator !== undefined && terminator !== padTokenId)
  return headAt === 'last' || one ? { headAt: 'last' } : { headAt, padTokenId }
}

/** `pad_token_id` of the checkpoint that a file with a head is part of, or that it is. */
async function padBeside(file: string | undefined): Promise<number | undefined> {
  if (file === undefined) return undefined
  const folder = (await isFolder(resolve(file))) ? resolve(file) : dirname(resolve(file))
  const config = join(folder, 'config.json')
  if (!existsSync(config)) return undefined
  const id = textConfig(await Config.read(config)).get('pad_token_id')
  return typeof id === 'number' && id >= 0 ? id : undefined
}
