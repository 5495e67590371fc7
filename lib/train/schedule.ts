/**
 * The learning rate of each step, as transformers' schedulers of the same names have it.
 */

export const SCHEDULES = ['constant', 'linear', 'cosine'] as const
export type Schedule = (typeof SCHEDULES)[number]

/**
 * Factor of the learning rate: up from 0 over `warmup` steps, then constant, or down to 0 at `total`, in a line or a half cosine.
 * @param step 0-based: the first step of a run with warm-up has factor 0
 */
export function scheduleFactor(schedule: Schedule, step: number, total: number, warmup: number): number {
  if (step < warmup) return step / warmup
  if (schedule === 'constant') return 1
  const progress = (step - warmup) / Math.max(1, total - warmup)
  return schedule === 'linear' ? Math.max(0, 1 - progress) : Math.max(0, 0.5 * (1 + Math.cos(Math.PI * progress)))
}

/** Steps of warm-up: `warmupSteps` itself, or below 1 that share of all steps, rounded up. */
export function warmupLength(warmupSteps: number, total: number): number {
  return warmupSteps < 1 ? Math.ceil(warmupSteps * total) : warmupSteps
}
