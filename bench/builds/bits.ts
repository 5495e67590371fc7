/**
 * Rows of two builds counted by what the builds have in common: their ids, and where these are equal the bits of their rewards.
 */
import type { RowDigest } from './questions.js'

/** A line of `implex score`, as far as it is looked at. */
export interface OutputRow {
  chosen_reward?: number
  rejected_reward?: number
  rewards?: number[]
  error?: { code: string }
}

export interface Counts {
  rows: number
  /** Scored by both with the same ids, and the same rewards to the last bit. */
  equalRewards: number
  /** Scored by both with the same ids, but other rewards: must be 0. */
  otherRewards: number
  /** Scored by both, with other ids or, for implicit rewards, another border. */
  otherIds: number
  /** Refused or left out by one of the two only. */
  scoredByOne: number
  scoredByNone: number
}

/** `ids` and `rewards`: of the earlier build and of the later one, row by row. */
export function countRows(
  kind: 'explicit' | 'implicit' | 'generative',
  [idsBefore, idsNow]: readonly [readonly RowDigest[], readonly RowDigest[]],
  [before, now]: readonly [readonly OutputRow[], readonly OutputRow[]],
): Counts {
  const counts = { rows: 0, equalRewards: 0, otherRewards: 0, otherIds: 0, scoredByOne: 0, scoredByNone: 0 }
  before.forEach((row, i) => {
    counts.rows++
    counts[outcome(kind, [idsBefore[i]!, idsNow[i]!], [row, now[i]!])]++
  })
  return counts
}

function outcome(
  kind: 'explicit' | 'implicit' | 'generative',
  [idsBefore, idsNow]: readonly [RowDigest, RowDigest],
  [before, now]: readonly [OutputRow, OutputRow],
): Exclude<keyof Counts, 'rows'> {
  const scored = [before, now].filter(({ error }) => error === undefined).length
  if (scored < 2) return scored === 1 ? 'scoredByOne' : 'scoredByNone'
  const sameBorders = kind !== 'implicit' || idsBefore.borders === idsNow.borders
  if (idsBefore.ids !== idsNow.ids || !sameBorders) return 'otherIds'
  const [a, b] = [rewardsOf(before), rewardsOf(now)]
  return a.length === b.length && a.every((reward, k) => Object.is(reward, b[k])) ? 'equalRewards' : 'otherRewards'
}

/** All digits of a double are written, so that what is read back has its bits. */
function rewardsOf({ chosen_reward, rejected_reward, rewards }: OutputRow): readonly number[] {
  const found = rewards ?? [chosen_reward, rejected_reward]
  if (found.every((reward) => typeof reward === 'number')) return found
  throw new Error('a row has neither rewards nor an error')
}

export function total(list: readonly Counts[]): Counts {
  const sum: Counts = { rows: 0, equalRewards: 0, otherRewards: 0, otherIds: 0, scoredByOne: 0, scoredByNone: 0 }
  for (const counts of list) for (const key of Object.keys(sum) as (keyof Counts)[]) sum[key] += counts[key]
  return sum
}
