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
  const { ids, common, apart } = continueText(tokenizer, prompt, text)
  const whole = { ids, border: common, differs: false, parted }
  if (parted || (apart && common === prompt.ids.length)) return whole
  const rest = tokenizer.encode(text.slice(prompt.text.length))
  const own = ids.subarray(common)
  if (common === prompt.ids.length && own.length === rest.length && rest.every((id, i) => id === own[i])) return whole
  if (border === 'whole') return { ...whole, differs: true }
  return { ids: concat(prompt.ids, rest), border: prompt.ids.length, differs: true, parted }
}

/** The ids of `text`, those of the sections that it has in common with `before` taken over. */
function continueText(tokenizer: Tokenizer, before: EncodedText, text: string) {
  const sections = tokenizer.sections(text)
  const end = before.text.length
  let shared = 0
  while (shared < before.sections.length && sameSection(before.sections[shared]!, sections[shared])) shared++
  const tail: number[] = []
  // Whether what follows `before` is known to have the ids that it has alone.
  let apart =
    shared === before.sections.length && (sections[shared]?.start ?? text.length) === end && tokenizer.startsAfresh
  for (let i = shared; i < sections.length; i++) {
    // A section that goes on where the earlier text ended may be cut just there.
    const reaches = i === shared && shared === before.sections.length - 1
    const cut = tokenizer.encodeSection(sections[i]!, tail, reaches ? end - sections[i]!.start : -1)
    apart ||= cut
  }
  const kept = before.starts[shared] ?? before.ids.length
  const ids = concat(before.ids.subarray(0, kept), tail)
  tokenizer.watch?.(text, ids)
  let common = kept
  while (common < before.ids.length && common < ids.length && before.ids[common] === ids[common]) common++
  return { ids, common, apart }
}

function sameSection(a: Section, b: Section | undefined): boolean {
  if (b === undefined || a.start !== b.start) return false
  return 'id' in a ? 'id' in b && a.id === b.id : 'text' in b && a.text === b.text
}

function concat(a: Int32Array, b: ArrayLike<number>): Int32Array {
  const all = new Int32Array(a.length + b.length)
  all.set(a)
  all.set(b, a.length)
  return all
}
