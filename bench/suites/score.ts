/**
 * `implex bench score`: made checkpoints scored by token ids (the engine alone) and from texts (everything).
 */
import type { EncodedRow } from '../../lib/data/encode.js'
import type { DType } from '../../lib/native/device.js'
import { RewardModel } from '../../lib/models/reward-model.js'
import { LARGE_VOCABULARY, type ModelSize } from './checkpoint.js'
import { peakBytes, residentBytes, resetPeak } from './memory.js'
import { type ModelSuiteOptions, prepareModel, readPairs, timed } from './models.js'
import { profiled, profileTable } from './profile.js'
import type { BenchCase } from './result.js'
import { median } from './statistics.js'
import { mebibytes, short, table } from './table.js'
import type { Pair } from './texts.js'
import { BETA, type BenchKind, realTokens, ScoringWorkload, unshared, type WorkloadOptions } from './workload.js'

const BEST_OF = 8
/** @throws ImplexError, and the signal's reason */
export async function scoreSuite(options: ModelSuiteOptions): Promise<BenchCase[]> {
  const { sizes, dtypes, device, samples, signal } = options
  const cases: BenchCase[] = []
  const add = (item: BenchCase) => {
    cases.push(item)
    options.onCase?.(item)
  }
  const { pairs, folder } = await readPairs(options)
  // First: memory that other cases freed and the process kept would hide what this one needs.
  if (!options.quick) {
    const large = await prepareModel(LARGE_VOCABULARY, { pairs, folder, device, dtype: 'f32' })
    add(await memoryCase(large.rows, large.options))
  }
  for (const size of sizes) {
    for (const dtype of dtypes) {
      const { rows, options: model } = await prepareModel(size, { pairs, folder, device, dtype })
      for (const kind of ['explicit', 'implicit'] as const) {
        for (const item of await scoreCases({
          size,
          dtype,
          kind,
          rows,
          pairs,
          model,
          samples,
          signal,
        }))
          add(item)
      }
    }
  }
  const [first] = sizes
  const { rows, options: model } = await prepareModel(first!, { pairs, folder, device, dtype: 'f32' })
  for (const item of await bestOfCases(first!, rows, model, samples, signal)) add(item)
  return cases
}

interface Setting {
  size: ModelSize
  dtype: DType
  kind: BenchKind
  rows: EncodedRow[]
  pairs: readonly Pair[]
  model: WorkloadOptions
  samples: number
  signal?: AbortSignal
}

async function scoreCases({ size, dtype, kind, rows, pairs, model, samples, signal }: Setting): Promise<BenchCase[]> {
  const name = `${size.name} ${kind} ${dtype}`
  const work = { tokens: realTokens(rows), pairs: rows.length }
  const cases: BenchCase[] = []
  {
    using workload = await ScoringWorkload.open(kind, model)
    const loaded = residentBytes()
    resetPeak()
    const seconds = await timed(samples, () => workload.score(rows), signal)
    const values = { weightBytes: workload.weightBytes, extraBytes: Math.max(0, peakBytes() - loaded) }
    const profile = await profiled(() => workload.score(rows))
    cases.push({ name: `${name} ids`, samples: seconds, work, values, profile })
    const single = async () => {
      for (const row of rows) await workload.score([row])
    }
    cases.push({ name: `${name} ids, 1 pair a batch`, samples: await timed(samples, single, signal), work })
  }
  // The reference's values are not kept on disk, so that every repetition computes them.
  const opened = await RewardModel.open(model.policy, {
    kind,
    device: model.device,
    dtype,
    beta: BETA,
    cache: false,
    ...(kind === 'explicit' ? { head: model.head } : { reference: model.reference }),
  })
  using rewardModel = opened
  const whole = () => rewardModel.score(pairs, { signal })
  cases.push({ name: `${name} text`, samples: await timed(samples, whole, signal), work })
  return cases
}

async function bestOfCases(
  size: ModelSize,
  rows: readonly EncodedRow[],
  model: WorkloadOptions,
  samples: number,
  signal: AbortSignal | undefined,
): Promise<BenchCase[]> {
  const groups = bestOf(rows)
  const work = { tokens: realTokens(groups) }
  using workload = await ScoringWorkload.open('implicit', model)
  const shared = await timed(samples, () => workload.score(groups), signal)
  const apart = await timed(samples, () => workload.score(unshared(groups)), signal)
  return [
    { name: `${size.name} best of ${BEST_OF}, shared`, samples: shared, work },
    { name: `${size.name} best of ${BEST_OF}, unshared`, samples: apart, work },
  ]
}

/** Two groups: prompts of 1024 tokens, eight responses of 64, as in scoring the candidates of a long conversation. */
export function bestOf(rows: readonly EncodedRow[]): EncodedRow[] {
  const ids = rows.flatMap(({ prompt, responses }) => [...prompt, ...responses.flatMap((response) => [...response])])
  const take = (start: number, count: number) =>
    Int32Array.from({ length: count }, (_, i) => ids[(start + i) % ids.length]!)
  return [0, 1].map((index) => ({
    index,
    shape: 'group' as const,
    prompt: take(index * 1024, 1024),
    responses: Array.from({ length: BEST_OF }, (_, k) => take((index * BEST_OF + k) * 64 + 7, 64)),
  }))
}

async function memoryCase(rows: EncodedRow[], model: WorkloadOptions): Promise<BenchCase> {
  using workload = await ScoringWorkload.open('implicit', model)
  const loaded = residentBytes()
  resetPeak()
  const samples = await timed(1, () => workload.score(rows))
  const values = { weightBytes: workload.weightBytes, extraBytes: Math.max(0, peakBytes() - loaded) }
  return {
    name: `${LARGE_VOCABULARY.name} implicit f32 ids`,
    samples,
    work: { tokens: realTokens(rows), pairs: rows.length },
    values,
  }
}

export const MODEL_COLUMNS = ['case', 'seconds', 'tokens/s', 'pairs/s', 'extra memory']

/** Rows under MODEL_COLUMNS; `none` stands where a case has no such number. */
export function modelRows(cases: readonly BenchCase[], none: string): string[][] {
  return cases.map(({ name, samples, work, values }) => {
    const seconds = median(samples)
    return [
      name,
      short(seconds),
      work.tokens === undefined ? none : short(work.tokens / seconds),
      work.pairs === undefined ? none : short(work.pairs / seconds),
      values?.extraBytes === undefined ? none : mebibytes(values.extraBytes),
    ]
  })
}

export function modelTable(cases: readonly BenchCase[]): string {
  return [table(MODEL_COLUMNS, modelRows(cases, '-')), profileTable(cases)].filter((text) => text !== '').join('\n')
}
