/**
 * The names that transformers gives to a model's tensors, whatever those of the checkpoint's own files are.
 */
import { FAMILIES, type Family } from '../../checkpoint/families.js'
import type { ModelSpec, WeightSource } from '../../native/spec.js'

/** @param name of the family @returns what a tensor of the checkpoint is saved as */
export function savedNames(name: string, spec: ModelSpec): (source: Pick<WeightSource, 'tensor' | 'role'>) => string {
  const family = FAMILIES.get(name)!
  const { prefix, embedding, unembedding } = family
  const readPrefix = prefixOf(family, spec)
  return ({ tensor, role }) => {
    if (role === 'embedding') return prefix + embedding
    if (role === 'unembedding') return unembedding.includes(tensor) ? tensor : unembedding[0]!
    return prefix + tensor.slice(readPrefix.length)
  }
}

/** What comes before the body's names in the file that was read. */
function prefixOf(family: Family, spec: ModelSpec): string {
  const [norm] = family.final(spec)
  const { tensor } = spec.weights.find(({ role }) => role === 'final_norm')!
  return tensor.slice(0, tensor.length - norm!.name.length)
}
