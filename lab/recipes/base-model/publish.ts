/**
 * From the training's folder to the one that is shipped: weights in bf16, and beside them how they were made.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { openCheckpoint } from '../../../lib/checkpoint/checkpoint.js'
import { decode } from '../../../lib/checkpoint/dtype.js'
import { readAt, withRegularFile } from '../../../lib/core/files.js'
import { type NamedTensor, writeCheckpoint } from '../../../lib/checkpoint/write.js'

const KEPT = ['tokenizer.json', 'tokenizer_config.json', 'generation_config.json'] as const

/** @param more further files by name; the folder is replaced */
export async function publish(trained: string, folder: string, more: Record<string, string>): Promise<void> {
  const { spec } = await openCheckpoint(trained)
  const tensors: NamedTensor[] = []
  for (const { tensor, file, offset, bytes, dtype, shape } of spec.weights) {
    const stored = await withRegularFile(file, (handle) => readAt(handle, offset, bytes))
    tensors.push({ name: tensor, shape, data: decode(stored, dtype) })
  }
  const config = JSON.parse(await readFile(join(trained, 'config.json'), 'utf8')) as Record<string, unknown>
  config['torch_dtype'] = 'bfloat16'
  const files: Record<string, string> = { ...more }
  for (const name of KEPT) files[name] = await readFile(join(trained, name), 'utf8')
  await writeCheckpoint(folder, { config, tensors, files, dtype: 'bf16' }, { replace: true })
}
