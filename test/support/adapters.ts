/** Saved LoRA adapters, read as peft reads them and independently of lib: their tensors, and the base model with them merged into it. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { readHeader } from '../../lib/checkpoint/safetensors.js'
import { readTensors } from '../../lib/checkpoint/tensors.js'
import { readWeight, storedDtype } from '../../lib/checkpoint/weights.js'
import { type NamedTensor, writeCheckpoint } from '../../lib/checkpoint/write.js'

export interface AdapterFolder {
  config: {
    r: number
    lora_alpha: number
    use_rslora: boolean
    rank_pattern: Record<string, number>
    alpha_pattern: Record<string, number>
    [key: string]: unknown
  }
  /** By name. */
  tensors: Map<string, NamedTensor>
}

const WRAPPER = 'base_model.model.'

async function valuesOf(entries: Awaited<ReturnType<typeof readTensors>>): Promise<Map<string, NamedTensor>> {
  const tensors = new Map<string, NamedTensor>()
  for (const [name, entry] of entries) {
    const data = await readWeight({ ...entry, tensor: name, dtype: storedDtype(entry) })
    tensors.set(name, { name, shape: entry.shape, data })
  }
  return tensors
}

export async function readAdapter(folder: string): Promise<AdapterFolder> {
  const config = JSON.parse(readFileSync(join(folder, 'adapter_config.json'), 'utf8')) as AdapterFolder['config']
  return { config, tensors: await valuesOf(await readHeader(join(folder, 'adapter_model.safetensors'))) }
}

/** Rank and scale of a module, by peft's rule for patterns. */
export function lowRankOf({ config }: Pick<AdapterFolder, 'config'>, module: string): { rank: number; scale: number } {
  const { r, lora_alpha: alpha, use_rslora: rslora } = config
  const first = (patterns: Record<string, number>) =>
    Object.entries(patterns).find(([key]) => new RegExp(`^(.*\\.)?(${key})$`).test(module))?.[1]
  const rank = first(config.rank_pattern) ?? r
  return { rank, scale: (first(config.alpha_pattern) ?? alpha) / (rslora ? Math.sqrt(rank) : rank) }
}

/**
 * Writes the base with W + scale · B A in the place of every W, and with the adapter's tokenizer and longer embeddings.
 * @returns the adapter's head
 */
export async function writeMerged(out: string, base: string, adapter: string): Promise<Float32Array | undefined> {
  const read = await readAdapter(adapter)
  const tensors = await valuesOf(await readTensors(base))
  const used = new Set<string>()
  for (const tensor of tensors.values()) {
    const module = tensor.name.replace(/\.weight$/, '')
    const whole = read.tensors.get(WRAPPER + tensor.name)
    if (whole !== undefined) {
      used.add(whole.name)
      Object.assign(tensor, { shape: whole.shape, data: whole.data })
    }
    const [a, b] = ['A', 'B'].map((part) => read.tensors.get(`${WRAPPER}${module}.lora_${part}.weight`))
    if (a === undefined || b === undefined) continue
    used.add(a.name).add(b.name)
    const { rank, scale } = lowRankOf(read, module)
    const [outputs, inputs] = tensor.shape as [number, number]
    if (`${a.shape}` !== `${[rank, inputs]}` || `${b.shape}` !== `${[outputs, rank]}`)
      throw new Error(`${module}: A [${a.shape}], B [${b.shape}] for [${tensor.shape}] and rank ${rank}`)
    for (let i = 0; i < outputs; i++) {
      for (let j = 0; j < inputs; j++) {
        let sum = 0
        for (let k = 0; k < rank; k++) sum += b.data[i * rank + k]! * a.data[k * inputs + j]!
        tensor.data[i * inputs + j]! += scale * sum
      }
    }
  }
  const score = read.tensors.get(`${WRAPPER}score.weight`)
  if (score !== undefined) used.add(score.name)
  const lost = [...read.tensors.keys()].filter((name) => !used.has(name))
  if (lost.length > 0) throw new Error(`the base has no place for ${lost.join(', ')}`)
  const config = JSON.parse(readFileSync(join(base, 'config.json'), 'utf8')) as Record<string, unknown>
  const table = [...tensors.values()].find(({ name }) => /embed/.test(name))!
  const record = join(adapter, 'implex.json')
  await writeCheckpoint(out, {
    config: {
      ...config,
      vocab_size: table.shape[0],
      ...(existsSync(record) ? { implex: JSON.parse(readFileSync(record, 'utf8')) } : {}),
    },
    tensors: [...tensors.values()],
    files: Object.fromEntries(
      readdirSync(adapter)
        .filter((name) => /^(tokenizer|chat_template|special_tokens|added_tokens)/.test(name))
        .map((name) => [name, readFileSync(join(adapter, name), 'utf8')]),
    ),
  })
  return score?.data
}
