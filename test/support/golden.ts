/**
 * The golden checkpoints of ../shared/golden: float64 results of PyTorch, and how far implex is from them, through the public API.
 *
 * Errors are relative to a scale, so that a value near zero does not make a rounding look like a failure:
 *
 * | name | value | error relative to |
 * |---|---|---|
 * | logp | ln π(response), policy and reference | itself |
 * | token_logp | ln π(token) | itself, or 1 if that is larger: near p = 1 the error of a logit counts |
 * | ex_last, ex_mean | u·h at the last token, and its mean over the response | itself, or ‖u‖ if that is larger: h is normed, so its elements are near 1 |
 * | im | β (ln π - ln π_ref), β = 0.01 and 0.1 | β (|ln π| + |ln π_ref|), what it is the difference of |
 * | grm_yes | p("Yes") | itself |
 */
import { createHash } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { openCheckpoint, readHead } from '../../lib/checkpoint/checkpoint.js'
import type { DeviceName, DType } from '../../lib/native/device.js'
import { RewardModel } from '../../lib/models/reward-model.js'
import type { RewardModelOptions, Scores } from '../../lib/models/reward-options.js'
import { sharedPath } from './shared.js'

export interface GoldenPair {
  prompt: string
  chosen: string
  rejected: string
  ids: Record<'prompt' | 'chosen' | 'rejected' | 'grm_chosen' | 'grm_rejected', number[]>
  logp: Record<'policy' | 'ref', Record<Side, number>>
  token_logp: Record<Side, number[]>
  ex_last: number[]
  ex_mean: number[]
  im: Record<string, number[]>
  grm_yes: number[]
}

export type Side = 'chosen' | 'rejected'
export const SIDES = ['chosen', 'rejected'] as const

export const ARCHITECTURES = [
  ...['llama', 'llama3', 'qwen2', 'qwen3', 'gpt_neox', 'gpt_neox_serial', 'mistral', 'gemma2', 'gemma3', 'phi3'],
  ...['olmo2', 'olmo3', 'smollm3', 'granite', 'qwen3_moe'],
] as const
export type Architecture = (typeof ARCHITECTURES)[number]

/** The `model_type` of a golden checkpoint. */
export function familyOf(architecture: Architecture): string {
  const others: Partial<Record<Architecture, string>> = {
    llama3: 'llama',
    gemma3: 'gemma3_text',
    gpt_neox_serial: 'gpt_neox',
  }
  return others[architecture] ?? architecture
}

export const MEASURES = ['logp', 'token_logp', 'im', 'ex_last', 'ex_mean', 'grm_yes'] as const
export type Measure = (typeof MEASURES)[number]

/**
 * f32: the contract, 1e-4. bf16: derived in docs/numerics.md, "The bound for bf16": sums over a response average
 * the roundings of many logits, the others are single values.
 */
export const BOUNDS: Record<DType, Record<Measure, number>> = {
  f32: { logp: 1e-4, token_logp: 1e-4, im: 1e-4, ex_last: 1e-4, ex_mean: 1e-4, grm_yes: 1e-4 },
  bf16: { logp: 2 ** -7, token_logp: 2 ** -6, im: 2 ** -7, ex_last: 2 ** -4, ex_mean: 2 ** -4, grm_yes: 2 ** -4 },
}

export interface Golden {
  /** The policy's checkpoint. */
  path: string
  reference: string
  /** File of `score.weight`. */
  head: string
  pairs: GoldenPair[]
}

/** Undefined where the shared folder is absent. */
export function golden(architecture: Architecture): Golden | undefined {
  const folder = sharedPath(join('golden', architecture))
  if (folder === undefined) return undefined
  const { pairs } = JSON.parse(readFileSync(join(folder, 'expected.json'), 'utf8')) as { pairs: GoldenPair[] }
  return { path: join(folder, 'model'), reference: join(folder, 'ref'), head: join(folder, 'score.safetensors'), pairs }
}

/** What opens a golden checkpoint as each kind of reward model. */
export function kindsOf({ reference, head }: Golden, device: DeviceName = 'cpu'): Record<string, RewardModelOptions> {
  const common = { device, cache: false } as const
  return {
    implicit: { kind: 'implicit', reference, ...common },
    ex_last: { kind: 'explicit', head, ...common },
    ex_mean: { kind: 'explicit', pool: 'mean', head, ...common },
    generative: { kind: 'generative', ...common },
  }
}

export interface Accuracy {
  /** Largest error of each measure, over all pairs and both sides. */
  errors: Record<Measure, number>
  /** SHA-256 of the bits of all values compared. */
  digest: string
}

export async function measure(files: Golden, dtype: DType, device: DeviceName = 'cpu'): Promise<Accuracy> {
  const { path, pairs, head, reference } = files
  const hash = createHash('sha256')
  const scored = async (options: RewardModelOptions): Promise<Scores> => {
    using model = await RewardModel.open(path, { ...options, dtype })
    const scores = await model.score(pairs, { tokenLogprobs: options.kind === 'implicit' })
    for (const row of scores.rows) {
      for (const values of [row.rewards, row.logprobs, row.referenceLogprobs, ...(row.tokenLogprobs ?? [])])
        if (values !== undefined) hash.update(Float64Array.from(values))
    }
    return scores
  }
  /** Largest error of values[pair][side]. */
  const worst = (values: ArrayLike<number>[], value: Expected, scale: Expected) =>
    Math.max(
      ...pairs.flatMap((pair, i) =>
        SIDES.map((side, k) => Math.abs(values[i]![k]! - value(pair, side, k)) / Math.abs(scale(pair, side, k))),
      ),
    )
  const kinds = kindsOf(files, device)
  const logp: Expected = (pair, side) => pair.logp.policy[side]
  const ref: Expected = (pair, side) => pair.logp.ref[side]
  const headNorm = Math.hypot(...(await readHead(head, (await openCheckpoint(path)).spec.hiddenSize)))

  const implicit = await scored(kinds.implicit!)
  const large = await scored({ ...kinds.implicit!, kind: 'implicit', reference, beta: 0.1 })
  const last = await scored(kinds.ex_last!)
  const mean = await scored(kinds.ex_mean!)
  const generative = await scored(kinds.generative!)
  const difference = (beta: string, { rewards }: Scores) =>
    worst(
      rewards,
      (pair, _, k) => pair.im[beta]![k]!,
      (pair, side, k) => Number(beta) * (Math.abs(logp(pair, side, k)) + Math.abs(ref(pair, side, k))),
    )
  const projection = (name: 'ex_last' | 'ex_mean', { rewards }: Scores) => {
    const value: Expected = (pair, _, k) => pair[name][k]!
    return worst(rewards, value, (...place) => Math.max(Math.abs(value(...place)), headNorm))
  }
  const yes: Expected = (pair, _, k) => pair.grm_yes[k]!
  return {
    errors: {
      logp: Math.max(
        worst(
          implicit.rows.map((row) => row.logprobs!),
          logp,
          logp,
        ),
        worst(
          implicit.rows.map((row) => row.referenceLogprobs!),
          ref,
          ref,
        ),
      ),
      token_logp: Math.max(
        ...implicit.rows.flatMap((row, i) =>
          SIDES.map((side, k) => tokenError(row.tokenLogprobs![k]!, pairs[i]!.token_logp[side])),
        ),
      ),
      im: Math.max(difference('0.01', implicit), difference('0.1', large)),
      ex_last: projection('ex_last', last),
      ex_mean: projection('ex_mean', mean),
      grm_yes: worst(generative.rewards, yes, yes),
    },
    digest: hash.digest('hex'),
  }
}

type Expected = (pair: GoldenPair, side: Side, k: number) => number

function tokenError(actual: Float32Array, expected: number[]): number {
  if (actual.length !== expected.length) return Number.POSITIVE_INFINITY
  return Math.max(...expected.map((value, t) => Math.abs(actual[t]! - value) / Math.max(1, Math.abs(value))))
}

/** A table of errors in Markdown, one row per architecture. */
export function errorTable(rows: [name: string, errors: Record<Measure, number>][]): string {
  const cells = (name: string, values: string[]) =>
    `| ${[name.padEnd(15), ...values.map((text) => text.padEnd(10))].join(' | ')} |`
  return [
    cells('', [...MEASURES]),
    cells(
      '',
      MEASURES.map(() => '---:'),
    ).replaceAll(' '.repeat(15), '---            '),
    ...rows.map(([name, errors]) =>
      cells(
        name,
        MEASURES.map((key) => errors[key].toExponential(1)),
      ),
    ),
  ].join('\n')
}
