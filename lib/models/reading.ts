/**
 * What of a conversation is read as its reward: a head at one token, or at the ends of steps, or the tokens that follow a step.
 */
import type { Checkpoint } from '../checkpoint/checkpoint.js'
import { readHeadSpec, tokenOf } from '../checkpoint/head-spec.js'
import type { HeadReadAt } from '../checkpoint/heads.js'
import type { RewardHead } from '../checkpoint/reward-head.js'
import { outOfRange } from '../core/arguments.js'
import type { EncodeSettings, RewardKind } from '../data/encode.js'
import type { EncodePool } from '../data/encode-pool.js'
import type { StepTokens } from '../data/head-scorer.js'
import type { Pool } from '../data/rewards.js'
import type { StepEnds } from '../data/steps.js'
import { HEAD_AT, type HeadPlace, type HeadPlaceName, type HeadPlaceOption, headPlace } from './head-place.js'
import { limitsOf, openHead, type OpenText } from './open.js'
import type { ResolvedOptions } from './reward-options.js'

export interface Reading {
  /** explicit */
  head?: RewardHead
  /** Where the head is read, if that is one token. */
  place?: Place
  /** With process rewards: where they are read. */
  steps?: StepEnds
  /** generative, with process rewards. */
  tokens?: StepTokens
}

interface Place extends Omit<HeadPlace, 'headAt'> {
  headAt: HeadPlaceOption
  token?: { tokenId: number; append: boolean }
}

/**
 * @throws RangeError for tokens and labels that the model does not have
 * @throws ImplexError as openHead and headPlace do
 */
export async function openReading(text: OpenText, options: ResolvedOptions): Promise<Reading> {
  const { checkpoint, pool } = text
  const { kind, steps: ends } = options
  const tokens = new Tokens(pool, checkpoint)
  const steps = ends === undefined ? undefined : await stepEnds(tokens, ends)
  if (kind === 'generative' && steps !== undefined) {
    const { goodToken = 'Yes', badToken } = options
    const bad = badToken === undefined ? undefined : await tokens.id('badToken', badToken)
    return { steps, tokens: { good: await tokens.id('goodToken', goodToken), ...(bad === undefined ? {} : { bad }) } }
  }
  if (kind !== 'explicit') return {}
  const spec = options.headSpec === undefined ? undefined : await readHeadSpec(options.headSpec)
  if (spec?.at !== undefined && !HEAD_AT.test(spec.at))
    throw outOfRange('headSpec.at', 'last, last-non-pad, token:TOKEN or append:TOKEN', spec.at)
  const logit = spec?.logit === undefined ? undefined : await tokens.id('headSpec.logit', spec.logit)
  if (logit !== undefined && (options.label !== undefined || options.labelWeights !== undefined))
    throw outOfRange('headSpec', 'layers where a label is chosen or weighed: a logit has none', spec?.logit)
  if (logit !== undefined && options.head !== undefined)
    throw outOfRange('head', "left out for a logit, which is the model's own", options.head)
  const head = await openHead(checkpoint, { ...options, spec, logit, steps: steps !== undefined })
  checkPool(head, options.pool)
  if (steps !== undefined) {
    if (head.ofGate !== undefined)
      throw outOfRange('steps', 'left out for a head with a gate, unless a label is chosen', ends)
    return { head, steps }
  }
  if (options.pool !== 'last') return { head }
  return { head, place: await placeOf(text, options, head.readAt, tokens, spec?.at as HeadPlaceOption | undefined) }
}

/** What of a reading the encoding of rows must know. */
export function readingSettings(
  { head, place, steps }: Reading,
  kind: RewardKind,
): Pick<EncodeSettings, 'kind' | 'padTokenId' | 'readAt' | 'steps' | 'gated'> {
  return {
    // With process rewards a generative row is a conversation like any other, not a verification prompt.
    kind: steps === undefined ? kind : 'explicit',
    padTokenId: place?.padTokenId,
    readAt: place?.token,
    steps,
    gated: head?.ofGate !== undefined,
  }
}

async function stepEnds(tokens: Tokens, ends: string | number | RegExp): Promise<StepEnds> {
  if (ends instanceof RegExp) {
    const flags = ends.flags.replace('y', '')
    return { pattern: new RegExp(ends.source, flags.includes('g') ? flags : `${flags}g`) }
  }
  const tokenId = await tokens.id('steps', ends)
  return { tokenId, name: typeof ends === 'string' ? `${JSON.stringify(ends)} (id ${tokenId})` : String(tokenId) }
}

async function placeOf(
  { checkpoint, pool }: OpenText,
  options: ResolvedOptions,
  readAt: HeadReadAt | undefined,
  tokens: Tokens,
  specified: HeadPlaceOption | undefined,
): Promise<Place> {
  const wanted = options.headAt ?? specified
  const named = wanted === undefined ? null : /^(token|append):(.+)$/s.exec(wanted)
  if (named !== null) {
    const tokenId = await tokens.id('headAt', tokenOf(named[2]!))
    return { headAt: wanted!, token: { tokenId, append: named[1] === 'append' } }
  }
  if (wanted === undefined && typeof readAt === 'object') {
    const tokenId = await tokens.appended(readAt.append)
    return { headAt: `append:${tokenId}`, token: { tokenId, append: true } }
  }
  const from =
    options.head === undefined ? 'own' : { file: typeof options.head === 'string' ? options.head : undefined }
  return headPlace(wanted as HeadPlaceName | undefined, checkpoint, pool.description, from, readAt)
}

class Tokens {
  constructor(
    private readonly pool: EncodePool,
    private readonly checkpoint: Checkpoint,
  ) {}

  /** The id of a token that an option names. */
  async id(name: string, token: string | number): Promise<number> {
    const { vocabularySize } = limitsOf(this.checkpoint)
    const id = typeof token === 'number' ? token : await this.pool.singleTokenId(token)
    if (id === undefined) {
      throw outOfRange(
        name,
        'one token of the tokenizer (its text, or its id where the text alone is several tokens)',
        token,
      )
    }
    if (id < vocabularySize) return id
    throw outOfRange(name, `a token of the model, whose ids are below ${vocabularySize}`, token)
  }

  /** The token that a form of head puts at the end. */
  async appended(token: number | 'cls_token'): Promise<number> {
    if (typeof token === 'number') return this.id('reward_token_id', token)
    const { clsTokenId } = this.pool.description
    if (clsTokenId !== undefined) return this.id(token, clsTokenId)
    throw outOfRange(
      'headAt',
      'given as append:TOKEN: the head is read at a cls_token, and the tokenizer has none',
      undefined,
    )
  }
}

/** The engine's mean over tokens is that of a row. */
function checkPool(head: RewardHead, pool: Pool): void {
  if (pool === 'last') return
  if (head.ofHidden !== undefined) throw outOfRange('pool', '"last" for a head of several layers', pool)
  if (!head.linear) throw outOfRange('pool', '"last" for a head whose outputs become probabilities', pool)
}
