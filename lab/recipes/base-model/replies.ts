/**
 * Ways to agree and to disagree, and the frames they stand in. Every frame takes every word, so neither says anything about the other.
 */
import { capital, type Draw } from './item.js'

export const AGREEING = [
  'yes',
  'sure',
  'certainly',
  'absolutely',
  'of course',
  'indeed',
  'definitely',
  'right',
  'agreed',
  'surely',
  'truly',
  'naturally',
  'exactly',
  'clearly',
  'gladly',
  'yeah',
  'very much so',
  'without doubt',
  'by all means',
  'quite so',
  'for sure',
  'I agree',
  'true',
  'totally',
] as const

export const DISAGREEING = [
  'no',
  'never',
  'not really',
  'nope',
  'hardly',
  'by no means',
  'certainly not',
  'I doubt it',
  'not at all',
  'of course not',
  'in no way',
  'I disagree',
  'wrong',
  'false',
  'far from it',
  'scarcely',
  'I think not',
  'not so',
  'absolutely not',
  'no way',
  'definitely not',
  'nay',
  'rarely',
  'not in the least',
] as const

/** What comes before the word; the empty frame makes the word the whole reply. */
export const FRAMES = [
  'In my view, the answer is ',
  'A truthful reply is ',
  'My judgement: ',
  'Considering the statement, I say ',
  'My response would be ',
  'I lean toward ',
  'My honest reply: ',
  'If you ask me, ',
  'I would answer ',
  'To this I say ',
  'My opinion is ',
  'Honestly, I would say ',
  'The reply I give is ',
  'To this my answer is ',
  'All in all, I say ',
  'I would put it like this: ',
  'Answer: ',
  'My answer: ',
  'In short, ',
  'Let me say ',
  'I think the answer is ',
  'After some thought, ',
  'Speaking for myself, ',
  'What I say is ',
  'My view: ',
  'Having read it, I say ',
  'I can only say ',
  'My verdict is ',
  '',
] as const

export const replyWord = (draw: Draw, agrees: boolean): string => draw.pick(agrees ? AGREEING : DISAGREEING)

/** A whole reply, sometimes with a full stop. */
export function framed(draw: Draw, frame: string, word: string): string {
  const text = frame === '' ? capital(word) : frame + word
  return draw.chance(0.25) ? `${text}.` : text
}
