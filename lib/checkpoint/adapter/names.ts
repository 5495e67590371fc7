/**
 * The tensors of adapter_model.safetensors by the module that they belong to, as peft names them.
 */
import { join } from 'node:path'
import { ImplexError } from '../../core/errors.js'
import { quoted } from '../../core/files.js'
import { readHeader, type TensorEntry } from '../safetensors.js'
import { ADAPTER_WEIGHTS } from './beside.js'

/** What peft puts before the names of the model that it wraps. */
const WRAPPER = 'base_model.model.'

/** A module's low-rank part. */
export interface LowRankTensors {
  a?: TensorEntry
  b?: TensorEntry
  bias?: TensorEntry
  magnitude?: TensorEntry
  embeddingA?: TensorEntry
  embeddingB?: TensorEntry
}

export interface AdapterTensors {
  file: string
  lowRank: Map<string, LowRankTensors>
  /** Whole tensors, by the name that they have in the base. */
  whole: Map<string, TensorEntry>
}

const ENDS: readonly [string, keyof LowRankTensors][] = [
  ['.lora_A.weight', 'a'],
  ['.lora_B.weight', 'b'],
  ['.lora_B.bias', 'bias'],
  ['.lora_magnitude_vector', 'magnitude'],
  ['.lora_embedding_A', 'embeddingA'],
  ['.lora_embedding_B', 'embeddingB'],
]

/** @throws ImplexError ERR_CHECKPOINT_NOT_FOUND without the file; ERR_CONFIG_INVALID for names that are not known */
export async function readAdapterTensors(folder: string): Promise<AdapterTensors> {
  const file = join(folder, ADAPTER_WEIGHTS)
  const lowRank = new Map<string, LowRankTensors>()
  const whole = new Map<string, TensorEntry>()
  for (const [name, entry] of await readHeader(file)) {
    if (!name.startsWith(WRAPPER)) throw unknown(entry, `peft's names begin with ${quoted(WRAPPER)}`)
    const inner = name.slice(WRAPPER.length)
    const end = ENDS.find(([text]) => inner.endsWith(text))
    if (end !== undefined) {
      const module = inner.slice(0, -end[0].length)
      lowRank.set(module, { ...lowRank.get(module), [end[1]]: entry })
    } else if (/(^|\.)(lora_|trainable_tokens_)/.test(inner)) {
      throw unknown(entry, 'implex does not read this part of an adapter')
    } else {
      const own = inner.replace(/\.base_layer\.(weight|bias)$/, '.$1')
      if (whole.has(own)) throw unknown(entry, `the file has ${quoted(own)} twice, with and without "base_layer"`)
      whole.set(own, entry)
    }
  }
  return { file, lowRank, whole }
}

function unknown({ file, name }: TensorEntry, why: string): ImplexError {
  return new ImplexError('ERR_CONFIG_INVALID', `${file}: tensor ${quoted(name)}: ${why}`, { path: file })
}
