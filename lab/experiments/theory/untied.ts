/**
 * A copy of a checkpoint whose unembedding is a matrix of its own, in f32: the theorems train or change the unembedding while hidden states
 * stay fixed, which tied embeddings do not allow.
 */
import { join } from 'node:path'
import { openCheckpoint } from '../../../lib/checkpoint/checkpoint.js'
import { FAMILIES } from '../../../lib/checkpoint/families.js'
import { readJsonFile } from '../../../lib/core/files.js'
import { readWeight } from '../../../lib/checkpoint/weights.js'
import { type NamedTensor, writeCheckpoint } from '../../../lib/checkpoint/write.js'

/**
 * Writes weights and config, no tokenizer; what is at `folder` is replaced.
 * @param edit may change the unembedding [V, D] in place before it is written
 */
export async function untiedCopy(
  model: string,
  folder: string,
  edit: (unembedding: Float32Array) => void = () => {},
): Promise<void> {
  const { path, family, spec } = await openCheckpoint(model)
  const name = FAMILIES.get(family)!.unembedding[0]!
  const tensors = new Map<string, NamedTensor>()
  for (const weight of spec.weights) {
    const { tensor, shape, role } = weight
    if (role === 'head' || tensors.has(tensor)) continue
    const data = await readWeight(weight)
    tensors.set(tensor, { name: tensor, shape, data })
    if (role === 'embedding' && spec.tiedEmbedding) tensors.set(name, { name, shape, data: data.slice() })
  }
  const unembedding = spec.weights.find(({ role }) => role === 'unembedding')?.tensor ?? name
  edit(tensors.get(unembedding)!.data)
  const config = await readJsonFile(join(path, 'config.json'), 'ERR_CONFIG_INVALID')
  await writeCheckpoint(
    folder,
    {
      config: { ...config, tie_word_embeddings: false, dtype: 'float32', torch_dtype: 'float32' },
      tensors: [...tensors.values()],
    },
    { replace: true },
  )
}
