/**
 * The ids of a conversation, and where its prompt ends in them.
 *
 * `whole`: the conversation's text is tokenized in one piece, as transformers and TRL do; the prompt ends where the ids of the conversation
 * and of the prompt's text part. A token may reach over the border of the two texts, and then it belongs to the response.
 * `separate`: the prompt's text and what follows it are tokenized apart, as the code of arXiv 2507.07981 does.
 *
 * The two give the same ids unless the tokenizer joins or changes what stands at the border. A conversation whose text does not begin with
 * the prompt's has no border of texts: it is tokenized whole under both rules.
 */
import type { Border } from '../checkpoint/trained-with.js'
import type { Section } from './added-tokens.js'
import type { Tokenizer } from './tokenizer.js'

/** For a checkpoint that does not say what it was trained with. */
export const DEFAULT_BORDER: Border = 'whole'

/** A text with its ids, kept so that a longer one that begins alike need not be tokenized from its start. */
export interface EncodedText {
  text: string
  ids: Int32Array
  sections: Section[]
  /** How many ids come before each section. */
  starts: number[]
}

export interface Conversation {
  /** Ids of prompt and response. */
  ids: Int32Array
  /** So many of `ids` are the prompt's: they begin the prompt's own ids. */
  border: number
  /** The other rule gives other ids. */
  differs: boolean
  /** The conversation's text does not begin with the prompt's. */
  parted: boolean
}

export function encodeText(tokenizer: Tokenizer, text: string): EncodedText {
  const sections = tokenizer.sections(text)
  const ids: number[] = []
  const starts = sections.map((section) => {
    const start = ids.length
    tokenizer.encodeSection(section, ids)
    return start
  })
  tokenizer.watch?.(text, ids)
  return { text, ids: Int32Array.from(ids), sections, starts }
}

/** `text`: of the whole conversation. */
export function encodeConversation(
  tokenizer: Tokenizer,
  prompt: EncodedText,
  text: string,
  border: Border,
): Conversation {
  const parted = !text.startsWith(prompt.text)
  const { ids, common, alone } = continueText(tokenizer, prompt, text)
  const whole = { ids, border: common, differs: false, parted }
  if (parted) return whole
  const agrees = common === prompt.ids.length
  if (agrees && alone?.given.length === 0 && alone.from === common) return whole
  const after = text.slice(prompt.text.length)
  const rest = alone === undefined ? encodeText(tokenizer, after).ids : concat(alone.given, ids.subarray(alone.from))
  if (agrees && sameIds(ids, common, rest)) return whole
  if (border === 'whole') return { ...whole, differs: true }
  if (alone !== undefined) tokenizer.watch?.(after, rest)
  return { ids: concat(prompt.ids, rest), border: prompt.ids.length, differs: true, parted }
}

/** The ids of `text`, those of the sections that it has in common with `before` taken over. */
function continueText(tokenizer: Tokenizer, before: EncodedText, text: string) {
  const sections = tokenizer.sections(text)
  const end = before.text.length
  let shared = 0
  while (shared < before.sections.length && sameSection(before.sections[shared]!, sections[shared])) shared++
  const kept = before.starts[shared] ?? before.ids.length
  const tail: number[] = []
  // What follows `before` when it is tokenized alone: ids of its own, and then those of `text` from number `from` on. Absent: not known.
  let alone: { given: readonly number[]; from: number } | undefined
  if (shared === before.sections.length && (sections[shared]?.start ?? text.length) === end && tokenizer.startsAfresh)
    alone = { given: [], from: kept }
  for (let i = shared; i < sections.length; i++) {
    // A section that goes on where the earlier text ended may have other pieces from there on than it has alone.
    const reaches = i === shared && shared === before.sections.length - 1
    const rejoin = tokenizer.encodeSection(sections[i]!, tail, reaches ? end - sections[i]!.start : -1)
    if (rejoin !== undefined) alone = { given: rejoin.alone, from: kept + rejoin.from }
  }
  const ids = concat(before.ids.subarray(0, kept), tail)
  tokenizer.watch?.(text, ids)
  let common = kept
  while (common < before.ids.length && common < ids.length && before.ids[common] === ids[common]) common++
  return { ids, common, alone }
}

/** Whether `ids` are `rest` from `start` on. */
function sameIds(ids: Int32Array, start: number, rest: Int32Array): boolean {
  if (ids.length - start !== rest.length) return false
  for (let i = 0; i < rest.length; i++) if (ids[start + i] !== rest[i]) return false
  return true
}

function sameSection(a: Section, b: Section | undefined): boolean {
  if (b === undefined || a.start !== b.start) return false
  return 'id' in a ? 'id' in b && a.id === b.id : 'text' in b && a.text === b.text
}

function concat(a: ArrayLike<number>, b: ArrayLike<number>): Int32Array {
  const all = new Int32Array(a.length + b.length)
  all.set(a)
  all.set(b, a.length)
  return all
}
