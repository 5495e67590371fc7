/**
 * Checks that a run on disk is the same run as the one that wants to continue it.
 */
import { ImplexError } from './errors.js'

export type Json = string | number | boolean | null | Json[] | { [key: string]: Json }

/** What determines a run, under names that a message can use. */
export type Facts = Record<string, Json | undefined>

/** Every difference in words; `null` counts as absent. */
export function differences(before: Facts, now: Facts): string[] {
  return [...new Set([...Object.keys(before), ...Object.keys(now)])]
    .filter((name) => JSON.stringify(before[name] ?? null) !== JSON.stringify(now[name] ?? null))
    .map((name) => `${name} was ${shown(before[name])}, now ${shown(now[name])}`)
}

function shown(value: Json | undefined): string {
  if (value === undefined || value === null) return 'absent'
  return typeof value === 'string' && /^[0-9a-f]{64}$/.test(value)
    ? `content ${value.slice(0, 12)}`
    : JSON.stringify(value)
}

/** @param instead what to do otherwise @throws ImplexError ERR_RESUME_MISMATCH naming every difference */
export function checkSameRun(path: string, before: Facts, now: Facts, instead: string): void {
  const found = differences(before, now)
  if (found.length === 0) return
  throw new ImplexError(
    'ERR_RESUME_MISMATCH',
    `${path} belongs to a different run, which cannot continue with these options: ${found.join('; ')}. Repeat that run's options, or ${instead}`,
    { path },
  )
}
