/**
 * Scores the golden checkpoints in a process of its own, whose environment chooses threads, kernels or the build.
 * Arguments: dtypes. Prints one line of JSON, a GoldenReport.
 */
import type { DType } from '../../lib/native/device.js'
import { nativeInfo } from '../../lib/native/handles.js'
import { type Accuracy, ARCHITECTURES, type Architecture, golden, measure } from './golden.js'

export interface GoldenReport {
  builder: string
  kernels: string
  threads: number
  results: { architecture: Architecture; dtype: DType; accuracy: Accuracy }[]
}

const results: GoldenReport['results'] = []
for (const dtype of process.argv.slice(2) as DType[]) {
  for (const architecture of ARCHITECTURES) {
    const files = golden(architecture)
    if (files !== undefined) results.push({ architecture, dtype, accuracy: await measure(files, dtype) })
  }
}
const { builder, cpu, threads } = nativeInfo()
const report: GoldenReport = { builder, kernels: cpu.kernels, threads, results }
process.stdout.write(`${JSON.stringify(report)}\n`)
