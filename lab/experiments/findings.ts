/**
 * Numbers of an experiment as words: what headlines and tables have in common.
 */
import type { Findings } from './plan.js'
import type { Comparison, ExperimentKind } from './result.js'

export function compared(
  { comparison }: Pick<Findings, 'comparison'>,
  kind: ExperimentKind,
  shift: string,
  statistic: Comparison['statistic'] = 'accuracy',
): Comparison | undefined {
  return comparison.find((one) => one.kind === kind && one.shift === shift && one.statistic === statistic)
}

/** `97 %`: of an accuracy. */
export function percent(value: number | null | undefined): string {
  return typeof value === 'number' ? `${Math.round(100 * value)} %` : 'n/a'
}

/** `explicit 97 %, implicit 0 %`. */
export function byKind(findings: Findings, shift: string, statistic: Comparison['statistic'] = 'accuracy'): string {
  const show = (value: number | null | undefined) =>
    statistic === 'accuracy' ? percent(value) : typeof value === 'number' ? value.toFixed(2) : 'n/a'
  return findings.settings.kinds
    .map((kind) => `${kind} ${show(compared(findings, kind, shift, statistic)?.mean)}`)
    .join(', ')
}

/** Mean over the seeds of a set's accuracy. */
export function setAccuracy({ members }: Findings, kind: ExperimentKind, set: string): number | null {
  const values = members.filter((member) => member.kind === kind).map(({ evaluation }) => evaluation[set]?.accuracy)
  if (values.length === 0 || values.some((value) => typeof value !== 'number')) return null
  return (values as number[]).reduce((a, b) => a + b) / values.length
}
