/**
 * `implex bench train`: optimizer steps on made checkpoints, with the reference's log-probabilities computed in the step and kept from before.
 */
import { peakBytes, residentBytes, resetPeak } from './memory.js'
import { type ModelSuiteOptions, prepareModel, readPairs, timed } from './models.js'
import { profiled } from './profile.js'
import type { BenchCase } from './result.js'
import { realTokens, TrainingWorkload } from './workload.js'

/** @throws ImplexError, and the signal's reason */
export async function trainSuite(options: ModelSuiteOptions): Promise<BenchCase[]> {
  const { sizes, dtypes, device, samples, signal } = options
  const cases: BenchCase[] = []
  const add = (item: BenchCase) => {
    cases.push(item)
    options.onCase?.(item)
  }
  const { pairs, folder } = await readPairs(options)
  for (const size of sizes) {
    for (const dtype of dtypes) {
      const { rows, options: model } = await prepareModel(size, { pairs, folder, device, dtype })
      const work = { tokens: realTokens(rows), pairs: rows.length }
      for (const kind of ['explicit', 'implicit'] as const) {
        using workload = await TrainingWorkload.open(kind, model)
        const known = await workload.withReference(rows)
        const loaded = residentBytes()
        resetPeak()
        const name = `${size.name} ${kind} ${dtype} step`
        const seconds = await timed(samples, () => workload.step(known), signal)
        const values = { extraBytes: Math.max(0, peakBytes() - loaded) }
        const profile = await profiled(() => workload.step(known))
        add({ name, samples: seconds, work, values, profile })
        if (kind === 'explicit') continue
        const both = await timed(samples, async () => workload.step(await workload.withReference(rows)), signal)
        add({ name: `${name} with reference pass`, samples: both, work })
      }
    }
  }
  return cases
}
