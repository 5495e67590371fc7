/** Mixtures of experts: which layers have them, and the ways in which their weights are stored. */
import type { Config } from '../config.js'
import type { ExpertsSpec, LayerSpec } from '../../native/spec.js'
import { type Alternatives, rule, type TensorRule } from './family.js'
import { MAX } from './sizes.js'

export interface ExpertsOption {
  /** What each layer has instead of the usual dense MLP; {} for a layer with that. */
  read(config: Config, layers: number): Partial<Pick<LayerSpec, 'experts' | 'intermediateSize'>>[]
  /** Names below the layer, on disk and in transformers' memory, of the block and in it of an expert's gate, up and down. */
  block: string
  parts: { gate: string; up: string; down: string }
}

/** Looked up under both names that transformers has given the number over time. */
export function readExpertCount(config: Config, smallest = 2): number {
  const [name, other] = ['num_experts', 'num_local_experts'] as const
  const key = config.firstOf(name, other)
  const count = config.integer(key, smallest, MAX.experts)
  if (count === 1) throw config.unexpected(key, 'at least 2')
  if (config.has(name) && config.has(other) && config.get(name) !== config.get(other))
    throw config.error(other, `differs from "${name}"`)
  return count
}

export function readPerToken(config: Config, count: number): number {
  return config.integer('num_experts_per_tok', 1, count)
}

/**
 * One tensor per expert and projection, as transformers saves them; or one for all experts, gate above up, as transformers 5 has them in
 * memory and others save them.
 */
export function expertRules(option: ExpertsOption, { count }: ExpertsSpec, f: number, d: number): Alternatives {
  const { block, parts } = option
  const apart: TensorRule[] = [rule('router', `${block}.gate.weight`, count, d)]
  for (let e = 0; e < count; e++) {
    const name = (part: string) => `${block}.experts.${e}.${part}.weight`
    apart.push(
      rule(`experts.${e}.gate`, name(parts.gate), f, d),
      rule(`experts.${e}.up`, name(parts.up), f, d),
      rule(`experts.${e}.down`, name(parts.down), d, f),
    )
  }
  const slabs = Array.from({ length: count }, (_, e) => e)
  const half = (start: number) => ({ start, block: f, stride: 2 * f })
  const together: TensorRule[] = [
    {
      name: 'mlp.experts.gate_up_proj',
      shape: [count, 2 * f, d],
      parts: slabs.flatMap((slab) => [
        { role: `experts.${slab}.gate`, slab, rows: half(0) },
        { role: `experts.${slab}.up`, slab, rows: half(f) },
      ]),
    },
    {
      name: 'mlp.experts.down_proj',
      shape: [count, d, f],
      parts: slabs.map((slab) => ({ role: `experts.${slab}.down`, slab })),
    },
    rule('router', 'mlp.gate.weight', count, d),
  ]
  // The router comes last in the first of these, because its name does not tell them apart.
  return { oneOf: [[...apart.slice(1), apart[0]!], together] }
}
