/**
 * What an adapter changes beyond low-rank parts, merged into a file that lies in the system's folder for temporary files while the engine
 * reads it. The numbers are of the type that the engine holds them in, so that they are rounded once.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { throwIfAborted } from '../../core/abort.js'
import { fileError } from '../../core/files.js'
import type { ModelSpec, StoredDtype, WeightSource } from '../../native/spec.js'
import { readHeader } from '../safetensors.js'
import { storedDtype } from '../weights.js'
import { writeSafetensors } from '../write.js'
import type { Adapter } from './types.js'
import { changes, mergedValues } from './merge.js'

/**
 * @param use is given the spec with the adapter merged into it; the file goes when it is done
 * @throws ImplexError as mergedValues does, ERR_DISK_FULL, ERR_ABORTED, and what `use` throws
 */
export async function withMerged<T>(
  spec: ModelSpec,
  adapter: Adapter,
  dtype: StoredDtype,
  use: (spec: ModelSpec) => Promise<T>,
  signal?: AbortSignal,
): Promise<T> {
  const folder = await makeFolder()
  try {
    const file = join(folder, 'merged.safetensors')
    const changed = spec.weights.filter(({ role }) => changes(adapter, role))
    const tensors = changed.map((source) => ({
      name: source.role,
      shape: shapeOf(source),
      data: () => mergedValues(source, adapter),
      // Vectors and routers are held in f32.
      ...(source.shape.length === 1 || source.role.endsWith('.router') ? { dtype: 'f32' as const } : {}),
    }))
    await writeSafetensors(file, tensors, { dtype, checkValues: () => throwIfAborted(signal, 'the opening') })
    const merged = await readHeader(file)
    const weights = spec.weights.map((source): WeightSource => {
      const entry = merged.get(source.role)
      if (entry === undefined) return source
      const { name, ...place } = entry
      return { ...place, role: source.role, tensor: source.tensor, dtype: storedDtype(entry) }
    })
    return await use({ ...spec, weights })
  } finally {
    await rm(folder, { recursive: true, force: true }).catch(() => {})
  }
}

/** The shape of the rows that are the source's own. */
export function shapeOf({ rows, shape }: WeightSource): number[] {
  if (rows === undefined) return shape
  return [Math.ceil((shape[0]! - rows.start) / rows.stride) * rows.block, ...shape.slice(1)]
}

async function makeFolder(): Promise<string> {
  try {
    return await mkdtemp(join(tmpdir(), 'implex-adapter-'))
  } catch (error) {
    throw fileError(tmpdir(), 'make a folder in', error)
  }
}
