/**
 * Where the time of a piece of work goes: the share of each of the device's operations, and the rest.
 */
import { loadBinding } from '../../lib/native/load.js'
import type { OperationTime } from '../../lib/native/kernel-calls.js'
import type { BenchCase } from './result.js'
import { percent, table } from './table.js'

/** Share of the wall time by operation of native/backend.h, the largest first; `other` is what no operation took. */
export type Profile = Record<string, number>

/** Runs the work once. Operations are waited for one by one, so on a GPU it takes longer than it would. */
export async function profiled(run: () => Promise<unknown>): Promise<Profile> {
  const binding = loadBinding()
  binding.profileOperations(true)
  const start = performance.now()
  let operations: OperationTime[] = []
  try {
    await run()
  } finally {
    operations = binding.profileOperations(false)
  }
  const seconds = (performance.now() - start) / 1000
  const shares = operations.map(({ name, seconds: own }) => [name, own / seconds] as const)
  const other = 1 - shares.reduce((sum, [, share]) => sum + share, 0)
  return Object.fromEntries([...shares, ['other', Math.max(0, other)]])
}

const LEAST = 0.005

/** Rows: operations that take at least half a percent of any case, by their largest share; columns: the cases that have a profile. */
export function profileRows(cases: readonly BenchCase[], none: string): { head: string[]; rows: string[][] } {
  const profiles = cases.flatMap(({ name, profile }) => (profile === undefined ? [] : [{ name, profile }]))
  const largest = (operation: string) => Math.max(...profiles.map(({ profile }) => profile[operation] ?? 0))
  const operations = [...new Set(profiles.flatMap(({ profile }) => Object.keys(profile)))]
    .filter((operation) => operation !== 'other' && largest(operation) >= LEAST)
    .sort((a, b) => largest(b) - largest(a))
  return {
    head: ['operation', ...profiles.map(({ name }) => name)],
    rows: [...operations, 'other'].map((operation) => [
      operation,
      ...profiles.map(({ profile }) => (profile[operation] === undefined ? none : percent(profile[operation]))),
    ]),
  }
}

/** Each case's operations on a line of its own: their names are too long for columns of a terminal. */
export function profileTable(cases: readonly BenchCase[]): string {
  const rows = cases.flatMap(({ name, profile }) => {
    if (profile === undefined) return []
    const most = Object.entries(profile).sort(([, a], [, b]) => b - a)
    return most
      .filter(([, share]) => share >= 0.02)
      .map(([operation, share], i) => [i === 0 ? name : '', operation, percent(share)])
  })
  return rows.length === 0 ? '' : table(['where the time goes', 'operation', 'share'], rows)
}
