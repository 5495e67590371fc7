/**
 * Whole models on the GPU: what is asked of implex and of PyTorch, for each model shape. Styles: torch_gpu.py.
 */
import type { DeviceName } from '../../lib/native/device.js'
import type { Contest, Paths } from '../peers/rows.js'

export interface GpuContestOptions {
  device: DeviceName
  /** Names of model shapes. The first one is also trained. */
  models: readonly string[]
  /** PyTorch variants; each is compared by itself. */
  styles: readonly string[]
  /** Number of preference pairs per case; training uses half of them. */
  pairs: number
  /** Number of pairs in a padded batch of PyTorch. */
  batch: number
  /** Number of tokens in a batch of implex. */
  batchTokens: number
  uniform: { count: number; length: number }
  /** The same, scored one by one. */
  single: { count: number; length: number }
}

export const EXPLICIT = (model: string, { length }: { length: number }) => `${model} explicit scoring, S=${length}`
export const IMPLICIT = (model: string) => `${model} implicit scoring`
export const SINGLE = (model: string, { length }: { length: number }) => `${model} single rows, S=${length}`
export const TRAINING = (model: string, kind: string) => `${model} ${kind} training step`
const RATIO = 2
/** How PyTorch computes a head: torch_gpu.py, HEADS. */
const HEAD_STYLES = ['eager', 'logsumexp', 'chunked', 'compile', 'compile_chunked', 'liger', 'cce', 'cce_exact']

/** A head by itself, forward and with its backward pass, against every way that PyTorch has here. */
export function headContests(
  device: DeviceName,
  [n, v, d]: readonly [number, number, number],
  seconds: number,
): Contest[] {
  return (['forward', 'both'] as const).map((what) => {
    const request = { op: 'head', n, v, d, dtype: 'bf16', what, seconds }
    return {
      name: `head ${n}x${v}x${d} ${what === 'both' ? 'fwd+bwd' : 'fwd'}`,
      sides: {
        ours: { who: 'ours', request: { ...request, device } },
        ...Object.fromEntries(
          HEAD_STYLES.map((style) => [style, { who: 'torch' as const, request: { ...request, style, check: true } }]),
        ),
      },
      promises: {},
    }
  })
}

export function gpuContests(paths: Paths, options: GpuContestOptions): Contest[] {
  const { device, models, styles, pairs, batch, batchTokens, uniform, single } = options
  const list: Contest[] = []
  const contest = (
    name: string,
    request: Record<string, unknown> & { op: string },
    ours: string,
    tolerance?: number,
  ): Contest => ({
    name,
    sides: {
      ours: { who: 'ours', request: { ...request, device, batchTokens, style: ours } },
      ...Object.fromEntries(styles.map((style) => [style, { who: 'torch' as const, request: { ...request, style } }])),
    },
    promises: Object.fromEntries(styles.map((style) => [style, RATIO])),
    ...(tolerance === undefined ? {} : { tolerance }),
  })
  for (const model of models) {
    const common = { ...paths.model(model), data: paths.data(pairs), batch, dtype: 'bf16' }
    const explicit = { op: 'score', kind: 'explicit', ...common, batch: uniform.count, uniform }
    list.push(contest(EXPLICIT(model, uniform), explicit, 'shared', 1e-1))
    // Of ours alone: launches of operations one by one against graphs, which must not change a bit.
    const row = { op: 'score', kind: 'explicit', ...common, device, style: 'alone', uniform: single }
    const side = (graphs: boolean) => ({ who: 'ours' as const, request: { ...row, graphs } })
    list.push({
      name: SINGLE(model, single),
      sides: { ours: side(false), 'ours, graphs': side(true) },
      promises: {},
      tolerance: 0,
    })
    list.push(contest(IMPLICIT(model), { op: 'score', kind: 'implicit', ...common }, 'shared', 2e-2))
    if (model !== models[0]) continue
    const few = { ...common, data: paths.data(Math.max(1, pairs >> 1)), known: true }
    for (const kind of ['explicit', 'implicit'])
      list.push(
        contest(TRAINING(model, kind), { op: 'train', kind, ...few }, kind === 'implicit' ? 'cached' : 'shared', 2e-2),
      )
  }
  return list
}
