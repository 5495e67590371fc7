/**
 * What a benchmark leaves: a JSON file with its samples and all that decides them, so that two can be compared later.
 */
import { readFile, writeFile } from 'node:fs/promises'
import { availableParallelism, loadavg, totalmem } from 'node:os'
import { type Gpu, gpus } from './gpu.js'
import { commitOf } from './commit.js'
import { fileError } from '../../lib/core/files.js'
import { isPlainObject } from '../../lib/core/arguments.js'
import { ImplexError } from '../../lib/core/errors.js'
import { nativeInfo } from '../../lib/native/handles.js'
import { nativeLocation } from '../../lib/native/load.js'

export const RESULT_FORMAT = 'implex-bench-1'

export interface BenchCase {
  /** Unique in its file. */
  name: string
  /** Seconds of one unit of work each. */
  samples: number[]
  /** What one unit of work is, for rates: `flops`, `bytes`, `tokens` (real ones of the unshared rows), `pairs`, `ops`. */
  work: Partial<Record<'flops' | 'bytes' | 'tokens' | 'pairs' | 'ops', number>>
  /** Other numbers of the case, such as bytes of memory. */
  values?: Record<string, number>
  /** Share of the wall time by operation of the device, from a run of its own. */
  profile?: Record<string, number>
  /** Relative error of what was timed, against what. A case beyond its limit is reported as failed and never as a time. */
  check?: { error: number; limit: number; against: string }
}

export interface BenchResult {
  format: typeof RESULT_FORMAT
  /** 'kernels', 'score', 'train', 'api', 'peers', 'gpu'. */
  what: string
  date: string
  command: string[]
  commit: string | null
  /** Whether the working tree had changes. */
  dirty: boolean | null
  machine: {
    cpu: string
    /** Processors that this process may run on. */
    processors: number
    threads: number
    kernels: string
    memoryBytes: number
    /** One-minute load average before and after: above `processors` the numbers are of a busy machine. */
    load: [before: number, after: number]
    platform: string
    /** As they were before; absent where there are none. */
    gpus?: Gpu[]
  }
  versions: Record<string, string>
  cases: BenchCase[]
  /** Promises and whether they were kept, where the benchmark has some. */
  targets?: { what: string; value: string; promised: string; aim: string; kept?: boolean }[]
  /** What was left out and why. */
  notes?: string[]
}

/** Takes the machine's state at the start; call the returned function with the cases at the end. */
export async function beginResult(
  what: string,
): Promise<(cases: BenchCase[], versions?: Record<string, string>) => BenchResult> {
  const before = loadavg()[0]!
  const { root } = nativeLocation()
  const info = nativeInfo()
  const { commit, dirty } = await commitOf(root)
  const found = await gpus()
  return (cases, versions = {}) => ({
    format: RESULT_FORMAT,
    what,
    date: new Date().toISOString(),
    command: ['implex', ...process.argv.slice(2)],
    commit,
    dirty,
    machine: {
      cpu: info.cpu.name,
      processors: availableParallelism(),
      threads: info.threads,
      kernels: info.cpu.kernels,
      memoryBytes: totalmem(),
      load: [before, loadavg()[0]!],
      platform: `${process.platform} ${process.arch}`,
      ...(found.length === 0 ? {} : { gpus: found }),
    },
    versions: { implex: info.version, node: process.versions.node, compiler: info.compiler, ...versions },
    cases,
  })
}

/** @throws ImplexError ERR_IO, ERR_DISK_FULL */
export async function writeResult(path: string, result: BenchResult): Promise<void> {
  try {
    await writeFile(path, `${JSON.stringify(result, null, 1)}\n`)
  } catch (error) {
    throw fileError(path, 'write', error)
  }
}

/** @throws ImplexError ERR_IO; also for a file that is no result of a benchmark */
export async function readResult(path: string): Promise<BenchResult> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw fileError(path, 'read', error)
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    value = undefined
  }
  if (isPlainObject(value) && value.format === RESULT_FORMAT && Array.isArray(value.cases)) {
    return value as unknown as BenchResult
  }
  throw new ImplexError('ERR_IO', `${path} is not a result of implex bench (format ${RESULT_FORMAT})`, { path })
}

export function failed({ check }: BenchCase): boolean {
  return check !== undefined && !(check.error <= check.limit)
}
