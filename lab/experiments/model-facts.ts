/**
 * What a result says of the model and of where it ran.
 */
import { join } from 'node:path'
import type { Checkpoint } from '../../lib/checkpoint/checkpoint.js'
import { readJsonFile } from '../../lib/core/files.js'
import { nativeInfo } from '../../lib/native/handles.js'
import type { ExperimentResult } from './result.js'

/**
 * The device that was taken, not the one that was asked for, and the pairs that were trained on.
 * @param folder the folder of a training run
 */
export async function trainingFacts(
  folder: string,
): Promise<{ facts: Pick<ExperimentResult, 'version' | 'device' | 'dtype' | 'kernels' | 'threads'>; trained: number }> {
  const { version, device, dtype, kernels, pairs } = await readJsonFile(join(folder, 'summary.json'), 'ERR_IO')
  return {
    facts: {
      version: String(version),
      device: String(device),
      dtype: String(dtype),
      kernels: String(kernels),
      threads: nativeInfo().threads,
    },
    trained: Number(pairs),
  }
}

/** Numbers in the checkpoint; tied embeddings count once. */
export function parametersOf({ spec }: Checkpoint): number {
  const tensors = new Map(spec.weights.map(({ tensor, shape }) => [tensor, shape.reduce((a, b) => a * b, 1)]))
  return [...tensors.values()].reduce((a, b) => a + b, 0)
}
