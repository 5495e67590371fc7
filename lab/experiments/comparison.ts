/**
 * Kinds of reward model compared over seeds: means, and intervals from a two-level bootstrap.
 *
 * A seed's value for a shift is the mean over the shift's sets. The interval's resamples draw seeds with replacement, and for each drawn
 * seed, within each set, prompts with replacement: pairs that share a prompt are drawn together, since they are not independent.
 */
import { PairRewards, type PairStatistics, quantile } from '../../lib/evaluate/statistics.js'
import { Random, STREAMS } from '../../lib/core/random.js'
import type { Comparison, ExperimentKind, Shift } from './result.js'

const COMPARED = ['accuracy', 'normalizedMargin', 'meanMargin', 'brier', 'ece'] as const

/** Rewards of one member on one set. */
export interface SetRewards {
  chosen: number[]
  rejected: number[]
  /** Number of each pair's prompt, from 0. */
  prompts: number[]
}

export interface MemberRewards {
  kind: ExperimentKind
  seed: number
  /** By set. */
  rewards: Record<string, SetRewards>
}

/** Every kind, shift and statistic. @param setsOf names of a shift's sets */
export function compare(
  members: readonly MemberRewards[],
  shifts: readonly Shift[],
  setsOf: (shift: string) => readonly string[],
  { resamples, seed = 0 }: { resamples: number; seed?: number },
): Comparison[] {
  const kinds = [...new Set(members.map(({ kind }) => kind))]
  return kinds.flatMap((kind) => {
    const ofKind = members.filter((member) => member.kind === kind)
    return shifts.flatMap(({ name }) => compareOne(ofKind, name, setsOf(name), resamples, seed))
  })
}

function compareOne(
  members: readonly MemberRewards[],
  shift: string,
  sets: readonly string[],
  resamples: number,
  seed: number,
): Comparison[] {
  const tables = members.map(({ rewards }) => sets.map((set) => clusters(rewards[set]!)))
  const values = tables.map((ofSeed) => meanOf(ofSeed.map(({ table }) => table.statistics())))
  const samples = COMPARED.map(() => new Float64Array(resamples))
  const random = Random.seeded(seed, STREAMS.bootstrap)
  for (let i = 0; i < resamples; i++) {
    const drawn = members.map(() => {
      const ofSeed = tables[random.below(tables.length)]!
      return meanOf(ofSeed.map((one) => resample(one, random)))
    })
    const mean = meanOf(drawn)
    for (const [j, statistic] of COMPARED.entries()) samples[j]![i] = mean[statistic]
  }
  const mean = meanOf(values)
  return COMPARED.map((statistic, j) => {
    const sorted = samples[j]!.sort()
    return {
      kind: members[0]!.kind,
      shift,
      statistic,
      mean: known(mean[statistic]),
      low: resamples === 0 ? null : known(quantile(sorted, 0.025)),
      high: resamples === 0 ? null : known(quantile(sorted, 0.975)),
      seeds: values.map((value) => known(value[statistic])),
    }
  })
}

type Compared = Record<(typeof COMPARED)[number], number>

interface Clustered {
  table: PairRewards
  /** Pairs of each prompt. */
  members: number[][]
}

function clusters({ chosen, rejected, prompts }: SetRewards): Clustered {
  const table = new PairRewards()
  const members: number[][] = []
  for (const [i, prompt] of prompts.entries()) {
    table.add(chosen[i]!, rejected[i]!)
    members[prompt] = [...(members[prompt] ?? []), i]
  }
  return { table, members: members.filter((one) => one !== undefined) }
}

function resample({ table, members }: Clustered, random: Random): PairStatistics {
  const weights = new Uint32Array(table.pairs)
  for (let i = 0; i < members.length; i++) {
    for (const pair of members[random.below(members.length)]!) weights[pair]!++
  }
  return table.statistics(weights)
}

function meanOf(values: readonly Compared[]): Compared {
  const mean = (name: keyof Compared) => values.reduce((sum, value) => sum + value[name], 0) / values.length
  return Object.fromEntries(COMPARED.map((name) => [name, mean(name)])) as Compared
}

function known(value: number): number | null {
  return Number.isFinite(value) ? value : null
}
