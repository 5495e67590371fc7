/**
 * The decoder that most families are: RMS norms, rotary attention with grouped keys and values, a gated MLP or experts. A family is what it
 * does differently; tensor names are those of transformers.
 */
import type { Config } from '../config.js'
import type { LayerSpec } from '../../native/spec.js'
import { readRope, type Rope, type RopeDefaults } from '../rope.js'
import { type ExpertsOption, expertRules } from './experts.js'
import { type Architecture, type Family, type LayerRules, rule, type TensorRule } from './family.js'
import { headDimOf, MAX, readActivation, readKvHeads, readSizes } from './sizes.js'
import { readWindows, refuseWindows, type WindowRule } from './windows.js'

export interface DecoderOptions {
  family: string
  opens: string
  refuses?: string
  classes: Family['classes']
  unused?: readonly string[]
  defaults?: Family['defaults']
  /** For a config without `head_dim`. Defaults to hidden size / heads. */
  headDim?: number
  /** For a config without `num_key_value_heads`: as many as heads, or an error. Defaults to 'heads'. */
  kvHeads?: 'heads' | 'required'
  /** For a config without `rms_norm_eps`. Defaults to 1e-6. */
  eps?: number
  /** Defaults to `hidden_act`, silu. */
  activation?: { key: string; fallback: string }
  /** Which projections of the attention have a bias: none, always q, k and v, or all four where the config says so. Defaults to 'none'. */
  bias?: 'none' | 'qkv' | 'attention_bias'
  /** The projections of the MLP have a bias where the config's `mlp_bias` says so. Defaults to false: such a config is refused. */
  mlpBias?: boolean
  /** Norms before attention and MLP, after them, or both. Defaults to 'before'. */
  norms?: 'before' | 'after' | 'both'
  qkNorm?: LayerSpec['qkNorm']
  /** Defaults to none: a config that asks for one is refused. */
  windows?: WindowRule
  /** Defaults to one table for all layers. The index of a layer without rotation is -1. */
  ropes?(config: Config, defaults: RopeDefaults, sliding: readonly boolean[]): { tables: Rope[]; of: number[] }
  rope?: Partial<RopeDefaults>
  /** Scale of the attention. Defaults to head size ^ -1/2. */
  attentionScale?(config: Config): number
  attentionSoftCap?(config: Config): number
  /** Whatever else of the model is not as usual. */
  model?(config: Config, hiddenSize: number): Partial<Architecture>
  experts?: ExpertsOption
  /** Names and shapes of the tensors for q, k, v, gate and up, where they are not one each. */
  fused?(a: Architecture, layer: LayerSpec): TensorRule[]
}

export function decoder(options: DecoderOptions): Family {
  const { family, opens, refuses, classes, unused, defaults } = options
  return {
    ...{ opens, refuses, classes, unused, defaults },
    prefix: 'model.',
    embedding: 'embed_tokens.weight',
    unembedding: ['lm_head.weight'],
    read: (config, note) => readDecoder(family, options, config, note),
    final: ({ hiddenSize: d }) => [rule('final_norm', 'norm.weight', d)],
    layer: (a, i, config) => layerRules(options, a, i, config),
  }
}

function readDecoder(
  family: string,
  options: DecoderOptions,
  config: Config,
  note: (sentence: string) => void,
): Architecture {
  const { kvHeads = 'heads', eps = 1e-6, activation = { key: 'hidden_act', fallback: 'silu' } } = options
  const { layers: count, intermediateSize, ...sizes } = readSizes(config)
  const headDim = config.has('head_dim')
    ? config.integer('head_dim', 1, MAX.headDim)
    : (options.headDim ?? headDimOf(config, sizes.hiddenSize, sizes.heads))
  readBiases(options, config)
  const { maxPositions } = sizes
  const windows = options.windows
    ? readWindows(config, count, maxPositions, options.windows)
    : refuseWindows(config, count, maxPositions)
  const ropeDefaults: RopeDefaults = { headDim, maxPositions, partial: 'whole', ...options.rope }
  const ropes = options.ropes?.(config, ropeDefaults, windows.sliding) ?? {
    tables: [readRope(config, ropeDefaults)],
    of: new Array<number>(count).fill(0),
  }
  const experts = options.experts?.read(config, count)
  const common: Omit<LayerSpec, 'window' | 'rope' | 'intermediateSize'> = {
    preNorm: options.norms !== 'after',
    postNorm: options.norms === 'after' || options.norms === 'both',
    attentionScale: options.attentionScale?.(config) ?? headDim ** -0.5,
    attentionSoftCap: options.attentionSoftCap?.(config) ?? 0,
    qkNorm: options.qkNorm ?? 'none',
  }
  return {
    family,
    ...sizes,
    maxPositions: limitPositions(config, ropes.tables, maxPositions, note),
    kvHeads: readKvHeads(config, sizes.heads, kvHeads === 'heads' ? sizes.heads : undefined),
    headDim,
    norm: 'rms',
    normEps: config.positive('rms_norm_eps', 0.1, eps),
    normOffset: 0,
    activation: readActivation(config, activation.key, activation.fallback),
    gated: true,
    parallelResidual: false,
    ropes: ropes.tables.map(({ rotaryDim, inverseFrequencies, scale }) => ({ rotaryDim, inverseFrequencies, scale })),
    ...{ embeddingScale: 1, residualScale: 1, logitScale: 1, logitSoftCap: 0 },
    ...options.model?.(config, sizes.hiddenSize),
    layers: Array.from({ length: count }, (_, i) => ({
      ...common,
      window: windows.lengths[i]!,
      rope: ropes.of[i]!,
      intermediateSize,
      ...experts?.[i],
    })),
  }
}

/** The shortest of the tables' limits, told of where it is shorter than the config's context. */
export function limitPositions(
  config: Config,
  tables: readonly Rope[],
  maxPositions: number,
  note: (sentence: string) => void,
): number {
  let shortest = maxPositions
  for (const { limit } of tables) {
    if (limit === undefined || limit.positions >= shortest) continue
    shortest = limit.positions
    note(
      `${config.file}: sequences may have ${shortest} tokens and not "max_position_embeddings" (${maxPositions}), because ${limit.reason}`,
    )
  }
  return shortest
}

/** Asks for all keys that layerRules will ask for, so that a wrong one is told of before the weights are looked at. */
function readBiases({ bias = 'none', mlpBias = false }: DecoderOptions, config: Config) {
  const asked = config.boolean('attention_bias', bias === 'qkv')
  if (bias === 'none' && asked) throw config.error('attention_bias', 'true is not supported in this family')
  const all = bias === 'attention_bias' && asked
  const mlp = config.boolean('mlp_bias', false)
  if (mlp && !mlpBias) throw config.error('mlp_bias', 'true is not supported')
  return { qkv: all || bias === 'qkv', o: all, mlp }
}

function layerRules(options: DecoderOptions, a: Architecture, i: number, config: Config): LayerRules {
  const layer = a.layers[i]!
  const { hiddenSize: d } = a
  const [q, kv, f] = [a.heads * a.headDim, a.kvHeads * a.headDim, layer.intermediateSize]
  const { qkv, o, mlp } = readBiases(options, config)
  const rules: LayerRules = [...normRules(layer, d)]
  if (options.fused) rules.push(...options.fused(a, layer))
  else {
    rules.push(
      rule('q', 'self_attn.q_proj.weight', q, d),
      rule('k', 'self_attn.k_proj.weight', kv, d),
      rule('v', 'self_attn.v_proj.weight', kv, d),
    )
  }
  rules.push(rule('o', 'self_attn.o_proj.weight', d, q))
  if (qkv) {
    rules.push(
      rule('q_bias', 'self_attn.q_proj.bias', q),
      rule('k_bias', 'self_attn.k_proj.bias', kv),
      rule('v_bias', 'self_attn.v_proj.bias', kv),
    )
  }
  if (o) rules.push(rule('o_bias', 'self_attn.o_proj.bias', d))
  if (layer.qkNorm !== 'none') {
    const whole = layer.qkNorm === 'width'
    rules.push(
      rule('q_norm', 'self_attn.q_norm.weight', whole ? q : a.headDim),
      rule('k_norm', 'self_attn.k_norm.weight', whole ? kv : a.headDim),
    )
  }
  if (layer.experts !== undefined) {
    rules.push(expertRules(options.experts!, layer.experts, f, d))
    return rules
  }
  if (!options.fused) {
    rules.push(rule('gate', 'mlp.gate_proj.weight', f, d), rule('up', 'mlp.up_proj.weight', f, d))
  }
  rules.push(rule('down', 'mlp.down_proj.weight', d, f))
  if (mlp) {
    rules.push(
      rule('gate_bias', 'mlp.gate_proj.bias', f),
      rule('up_bias', 'mlp.up_proj.bias', f),
      rule('down_bias', 'mlp.down_proj.bias', d),
    )
  }
  return rules
}

/** What `post_attention_layernorm` is, the norm after attention or the one before the MLP, depends on whether there are norms after. */
function normRules({ preNorm, postNorm }: LayerSpec, d: number): TensorRule[] {
  const before = preNorm ? [rule('attention_norm', 'input_layernorm.weight', d)] : []
  if (!postNorm) return [...before, rule('mlp_norm', 'post_attention_layernorm.weight', d)]
  return [
    ...before,
    rule('attention_post_norm', 'post_attention_layernorm.weight', d),
    ...(preNorm ? [rule('mlp_norm', 'pre_feedforward_layernorm.weight', d)] : []),
    rule('mlp_post_norm', 'post_feedforward_layernorm.weight', d),
  ]
}
