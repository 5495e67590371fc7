/**
 * The tensors of a base model under the names that peft gives them in an adapter, whatever way the base's own files store them.
 */
import { join } from 'node:path'
import type { TensorPart } from '../families.js'
import { type Checkpoint, familyOf } from '../checkpoint.js'
import { Config } from '../config.js'

export interface BaseTensor {
  /** `model.layers.0.self_attn.q_proj.weight` */
  name: string
  shape: number[]
  parts: TensorPart[]
}

export interface BaseModule {
  /** `model.layers.0.self_attn.q_proj` */
  name: string
  /** [outputs, inputs] */
  shape: [number, number]
  parts: TensorPart[]
  kind: 'linear' | 'expert' | 'router' | 'embedding' | 'unembedding'
}

/**
 * @param names of the adapter's tensors, without what peft puts before all: they tell where the body lies in the model that was trained
 * @returns every tensor by its name
 */
export async function baseTensors(base: Checkpoint, names: readonly string[]): Promise<Map<string, BaseTensor>> {
  const { config, family } = familyOf(await Config.read(join(base.path, 'config.json')))
  const { spec } = base
  const prefix = bodyPrefix([family.prefix, ...(family.otherPrefixes ?? [])], family.embedding, names)
  const tensors = new Map<string, BaseTensor>()
  const add = (name: string, shape: number[], parts: TensorPart[]) => {
    if (!tensors.has(name)) tensors.set(name, { name, shape, parts })
  }
  const table = [spec.vocabSize, spec.hiddenSize]
  add(prefix + family.embedding, table, [{ role: 'embedding' }])
  for (const name of family.unembedding) add(name, table, [{ role: 'unembedding' }])
  for (const { name, shape, parts } of family.final(spec)) add(prefix + name, shape, parts)
  for (const i of spec.layers.keys()) {
    // Of tensors that may be stored in several ways, all.
    const rules = family.layer(spec, i, config).flatMap((rule) => ('oneOf' in rule ? rule.oneOf.flat() : [rule]))
    for (const { name, shape, parts } of rules) {
      const placed = parts.map((part) => ({ ...part, role: `layers.${i}.${part.role}` }))
      add(`${prefix}layers.${i}.${name}`, shape, placed)
    }
  }
  return tensors
}

function bodyPrefix(prefixes: readonly string[], embedding: string, all: readonly string[]): string {
  const [usual] = prefixes as [string]
  // The longest first: one may begin with another.
  const found = [...prefixes]
    .sort((a, b) => b.length - a.length)
    .find((prefix) => all.some((name) => name.startsWith(`${prefix}layers.`)))
  if (found !== undefined) return found
  const bare = all.some((name) => name.startsWith('layers.') || name.startsWith(embedding.replace(/weight$/, '')))
  return bare ? '' : usual
}

/** The modules among the tensors that can have a low-rank part. */
export function baseModules(tensors: ReadonlyMap<string, BaseTensor>): Map<string, BaseModule> {
  const modules = new Map<string, BaseModule>()
  for (const { name: tensor, shape, parts } of tensors.values()) {
    const [outputs, inputs] = shape
    if (shape.length !== 2 || !tensor.endsWith('.weight')) continue
    const name = tensor.slice(0, -'.weight'.length)
    modules.set(name, { name, shape: [outputs!, inputs!], parts, kind: kindOf(parts[0]!.role) })
  }
  return modules
}

function kindOf(role: string): BaseModule['kind'] {
  if (role === 'embedding' || role === 'unembedding') return role
  if (role.endsWith('.router')) return 'router'
  return role.includes('.experts.') ? 'expert' : 'linear'
}
