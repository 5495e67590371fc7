/**
 * The rows of the comparison: what is asked of each side, and the ratio that is promised.
 */
import type { Request } from './peer.js'

/** One side of a case: the contestant and its request. `vs` cases name other contestants. */
export interface Contest {
  name: string
  /** Sides by label; the first is ours. */
  sides: Record<string, { who: 'ours' | 'torch'; request: Request }>
  /** Promised minimum ratios: seconds of the side / seconds of implex. */
  promises: Record<string, number>
  /** How far rewards may lie apart: ‖Δ ln π‖ / ‖ln π‖ for implicit, ‖Δr‖ / ‖r‖ for explicit. */
  tolerance?: number
}

export interface Paths {
  /** A model's files by size name. */
  model(size: string): { model: string; reference: string; head: string }
  /** A file with the first `count` pairs. */
  data(count: number): string
}

/** M, N, K: the square, and layers and head of real models at a batch's rows. */
const PRODUCTS: [number, number, number][] = [
  [2048, 2048, 2048],
  [2048, 8192, 2048],
  [2048, 2048, 8192],
  [512, 8960, 1536],
  [512, 32000, 768],
  [2048, 1024, 384],
]

export interface ContestOptions {
  /** Pairs for each size; training takes half of them. */
  pairs: Record<string, number>
  /** Number of pairs in a padded batch of PyTorch. */
  batch: number
  quick: boolean
}

export function contests(paths: Paths, { pairs, batch, quick }: ContestOptions): Contest[] {
  const list: Contest[] = []
  for (const dtype of ['f32', 'bf16'] as const) {
    for (const [m, n, k] of quick ? [[256, 256, 256] as const] : PRODUCTS) {
      const request = { op: 'gemm', m, n, k, dtype }
      list.push({
        name: `${dtype} product ${m}x${n}x${k}`,
        sides: { ours: { who: 'ours', request }, torch: { who: 'torch', request } },
        promises: { torch: dtype === 'f32' ? 0.95 : 0.9 },
      })
    }
  }
  for (const [size, count] of Object.entries(pairs)) {
    const common = { ...paths.model(size), data: paths.data(count), batch }
    const score = (kind: string, dtype: string, styles: Record<string, number>, tolerance: number): Contest => {
      const request = { op: 'score', kind, dtype, ...common }
      const peers = Object.keys(styles).map(
        (style) => [style, { who: 'torch', request: { ...request, style } }] as const,
      )
      return {
        name: `${size} ${kind} ${dtype} scoring`,
        sides: { ours: { who: 'ours', request: { ...request, style: 'shared' } }, ...Object.fromEntries(peers) },
        promises: styles,
        tolerance,
      }
    }
    list.push(score('implicit', 'f32', { plain: 4, tuned: 2 }, 1e-4))
    list.push(score('implicit', 'bf16', { tuned: 2 }, 2e-2))
    list.push(score('explicit', 'f32', { plain: 2.5 }, 1e-3))
  }
  const [first] = Object.entries(pairs) as [[string, number]]
  const [size, count] = first
  const common = { ...paths.model(size), dtype: 'f32', batch }
  const few = { ...common, data: paths.data(Math.max(1, count >> 1)) }
  for (const kind of ['explicit', 'implicit']) {
    const request = { op: 'train', kind, ...few }
    const torch = (style: string) => ({ who: 'torch' as const, request: { ...request, style } })
    list.push({
      name: `${size} ${kind} f32 training step`,
      sides: {
        ours: { who: 'ours', request: { ...request, style: 'shared' } },
        ...(kind === 'implicit'
          ? { 'ours, reference kept': { who: 'ours', request: { ...request, style: 'cached' } } }
          : {}),
        plain: torch('plain'),
        ...(kind === 'implicit' ? { tuned: torch('tuned') } : {}),
      },
      promises: kind === 'implicit' ? { plain: 3, tuned: 1.5 } : { plain: 3 },
    })
  }
  const all = { op: 'score', kind: 'implicit', ...common, data: paths.data(count) }
  const ours = (style: string) => ({ who: 'ours' as const, request: { ...all, style } })
  list.push({
    name: `${size} best of 8, long prompts`,
    sides: { ours: ours('best of 8, shared'), unshared: ours('best of 8, unshared') },
    promises: { unshared: 3 },
  })
  list.push({
    name: `${size} full batches against 1 pair a batch`,
    // Promised the other way round: at a batch of one pair at least half the full batch's rate.
    sides: { '1 pair a batch': ours('alone'), 'full batches': ours('shared') },
    promises: { 'full batches': 0.5 },
  })
  list.push({
    name: `${size} implicit f32 from texts`,
    sides: { ours: { who: 'ours', request: { ...all, op: 'text' } }, 'ids only': ours('shared') },
    promises: {},
  })
  return list
}
